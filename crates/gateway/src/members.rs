//! Who belongs to the grid, and where its store is, over HTTP.
//!
//! ```text
//! GET    /v1/members                     the list of keys
//! POST   /v1/members?key=KEY&name=NAME   200 {admitted}
//! DELETE /v1/members/KEY                 200 {revoked}
//! POST   /v1/tickets?for=1h&name=NAME    200 {ticket, key, expires}
//! GET    /v1/store                       {id, node, address, used, here}
//! POST   /v1/store                       200: this node's own is the grid's from now on
//! ```

use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use http::Method;
use tokio::sync::oneshot;

use crate::exchange::Exchange;
use crate::reply::{Outcome, otherwise, typed};
use crate::{Event, GridChange, Inspect, uri};

/// How long a ticket is good for if nobody says.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// The longest.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

impl Exchange<'_> {
    /// Answers what is at `/v1/members`, `/v1/tickets` and `/v1/store`; `None`: nothing is there.
    pub(crate) async fn members(&mut self) -> Option<Outcome> {
        let path = self.parts.uri.path().to_owned();
        let is_read = matches!(self.parts.method, Method::GET | Method::HEAD);
        if let Some(key) = path.strip_prefix("/v1/members/") {
            let change = GridChange::Revoke { key: key.to_owned() };
            return Some(self.change(&Method::DELETE, &["DELETE"], Ok(change)).await);
        }
        match path.as_str() {
            "/v1/members" if is_read => Some(self.inspect(Inspect::Members).await),
            "/v1/members" => {
                let change = self.admit();
                Some(self.change(&Method::POST, &["GET", "HEAD", "POST"], change).await)
            }
            "/v1/store" if is_read => Some(self.inspect(Inspect::Store).await),
            "/v1/store" => {
                Some(self.change(&Method::POST, &["GET", "HEAD", "POST"], Ok(GridChange::KeepStore)).await)
            }
            "/v1/tickets" => {
                let change = self.invite();
                Some(self.change(&Method::POST, &["POST"], change).await)
            }
            _ => None,
        }
    }

    fn admit(&self) -> Result<GridChange, v1::Failure> {
        let [key, name] = self.parameters(["key", "name"])?;
        let key = key.ok_or_else(|| Code::BadRequest.because("the key is missing: ?key=KEY"))?;
        Ok(GridChange::Admit { key, name: name.unwrap_or_default() })
    }

    fn invite(&self) -> Result<GridChange, v1::Failure> {
        let [lifetime, name] = self.parameters(["for", "name"])?;
        let lifetime = match lifetime {
            None => LIFETIME,
            Some(text) => bourse_wire::time::parse_duration(&text)
                .filter(|time| !time.is_zero() && *time <= LIFETIME_MAX)
                .ok_or_else(|| {
                    Code::BadRequest
                        .because(format!("a ticket cannot be good for {text:.32}"))
                        .hint("say how long, such as 10m, 1h or 48h, at most a year")
                })?,
        };
        Ok(GridChange::Invite { lifetime, name: name.unwrap_or_default() })
    }

    /// The query's parameters with these names.
    pub(crate) fn parameters<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<String>; N], v1::Failure> {
        let query = uri::query(self.parts.uri.query())
            .map_err(|e| Code::BadRequest.because(format!("the query has {e}")))?;
        let mut found = [const { None }; N];
        for (name, value) in query {
            let at = names.iter().position(|known| *known == name).ok_or_else(|| {
                Code::BadRequest
                    .because(format!("the query parameter {name:.64} means nothing here"))
                    .hint(format!("known ones: {}", names.join(", ")))
            })?;
            found[at] = Some(value);
        }
        Ok(found)
    }

    async fn change(
        &self,
        method: &Method,
        allowed: &'static [&'static str],
        change: Result<GridChange, v1::Failure>,
    ) -> Outcome {
        if self.parts.method != *method {
            return otherwise(&self.parts.method, allowed);
        }
        let (reply, answered) = oneshot::channel();
        let sent = self.gateway.shared.events.send(Event::Grid { change: change?, reply });
        sent.map_err(|_| Code::ShuttingDown.because("the daemon is stopping"))?;
        let json = answered.await.map_err(|_| Code::Internal.because("the daemon gave no answer"))??;
        Ok(typed("application/json", json.to_string().into()))
    }
}
