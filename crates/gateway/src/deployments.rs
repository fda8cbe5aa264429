//! Bundles of files that are put on the grid, over HTTP.
//!
//! ```text
//! GET    /v1/deployments                  what is deployed, and how far each node is with it
//! POST   /v1/deployments/NAME?count=3&labels=a,b&canary=1     200; the body is the bundle
//! DELETE /v1/deployments/NAME             200
//! POST   /v1/deployments/NAME/rollback    200: what was before is served again
//! POST   /v1/deployments/NAME/promote     200: what some nodes serve is served by all
//! ```

use bourse_wire::failure::Code;
use bourse_wire::v1;
use http::Method;
use tokio::sync::oneshot;

use crate::exchange::Exchange;
use crate::reply::{Outcome, otherwise, typed};
use crate::{Deploy, Event, Inspect, uri};

const PATH: &str = "/v1/deployments";

impl Exchange<'_> {
    /// Answers what is at `/v1/deployments` and below; `None`: nothing is there.
    pub(crate) async fn deployments(&mut self) -> Option<Outcome> {
        let path = self.parts.uri.path().to_owned();
        if path == PATH {
            return Some(self.inspect(Inspect::Deployments).await);
        }
        let rest = path.strip_prefix(PATH)?.strip_prefix('/')?;
        let (name, what) = rest.split_once('/').map_or((rest, None), |(name, what)| (name, Some(what)));
        let name = match uri::decode(name) {
            Ok(name) => name.into_owned(),
            Err(e) => return Some(Err(Code::BadRequest.because(format!("the path has {e}")))),
        };
        match (what, &self.parts.method) {
            (None, &Method::POST) => Some(self.put(name).await),
            (None, &Method::DELETE) => Some(self.deploy(name, Deploy::Remove).await),
            (None, method) => Some(otherwise(method, &["POST", "DELETE"])),
            (Some("rollback"), &Method::POST) => Some(self.deploy(name, Deploy::Rollback).await),
            (Some("promote"), &Method::POST) => Some(self.deploy(name, Deploy::Promote).await),
            (Some("rollback" | "promote"), method) => Some(otherwise(method, &["POST"])),
            (Some(_), _) => None,
        }
    }

    async fn put(&mut self, name: String) -> Outcome {
        let [count, labels, canary] = self.parameters(["count", "labels", "canary"])?;
        let (count, canary) = (number("count", count)?, number("canary", canary)?);
        let labels = labels.unwrap_or_default();
        let labels =
            labels.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let bundle = self.read().await?;
        self.deploy(name, Deploy::Put { bundle, count, labels, canary }).await
    }

    async fn deploy(&self, name: String, deploy: Deploy) -> Outcome {
        let (reply, answered) = oneshot::channel();
        let sent = self.gateway.shared.events.send(Event::Deploy { name, deploy, reply });
        sent.map_err(|_| Code::ShuttingDown.because("the daemon is stopping"))?;
        let json = answered.await.map_err(|_| Code::Internal.because("the daemon gave no answer"))??;
        Ok(typed("application/json", json.to_string().into()))
    }
}

fn number(name: &str, text: Option<String>) -> Result<Option<u32>, v1::Failure> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Code::BadRequest.because(format!("{name} is a number of nodes, not {text:.32}"))),
    }
}
