//! One request and its answer. Plain HTTP/1.1 on a connection of its own, or on one that is used again.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;
use super::locate::Found;

/// How long a daemon may take to let us in.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A daemon's address, checked.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    /// As it is shown.
    pub(super) url: String,
    authority: String,
    socket: String,
    /// In front of every path; no slash at the end.
    prefix: String,
    token: Option<String>,
}

/// A connection; its requests go one after the other.
pub(super) struct Connection<'d> {
    daemon: &'d Daemon,
    sender: SendRequest<Full<Bytes>>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// With the query, encoded.
    pub(super) path: String,
    pub(super) content_type: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) body: Bytes,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Without parameters, in lower case; empty if it is not said.
    pub(super) content_type: String,
    pub(super) call: Option<String>,
    pub(super) body: Bytes,
}

impl Daemon {
    pub(super) fn new(found: Found) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Url { url: found.url.clone(), reason: reason.to_owned() };
        let given = found.url.as_str();
        let url = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let url = url.strip_suffix('/').map(str::to_owned).unwrap_or(url);
        let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| refused(&e.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused(
                "only http is spoken; put what ends TLS in front of the daemon on its own machine",
            ));
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| refused("it names no host"))?;
        if uri.query().is_some() {
            return Err(refused("it has a query"));
        }
        let port = uri.port_u16().unwrap_or(80);
        // A daemon that listens everywhere listens here, too.
        let reachable = match host {
            "0.0.0.0" => "127.0.0.1",
            "[::]" => "[::1]",
            host => host,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let socket = format!("{reachable}:{port}");
        let token = found.token.clone();
        if token.as_ref().is_some_and(|t| http::HeaderValue::try_from(t).is_err()) {
            return Err(Error::Usage("the token holds characters that a token cannot have".to_owned()));
        }
        Ok(Self { authority: socket.clone(), socket, url, prefix, token })
    }

    pub(super) async fn connect(&self) -> Result<Connection<'_>, Error> {
        let unreachable = |reason: String| Error::Unreachable { url: self.url.clone(), reason };
        let stream = timeout(CONNECT_MAX, TcpStream::connect(&self.socket))
            .await
            .map_err(|_| unreachable(format!("no answer within {CONNECT_MAX:?}")))?
            .map_err(|e| unreachable(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        // Ends with the sender. What goes wrong on it is told to the request that it goes wrong for.
        tokio::spawn(connection);
        Ok(Connection { daemon: self, sender })
    }

    /// One request on a connection of its own.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        self.connect().await?.ask(ask).await
    }

    /// A request that is answered with JSON, or with what is wrong.
    pub(super) async fn ask_json(&self, ask: Ask) -> Result<serde_json::Value, Error> {
        let answer = self.ask(ask).await?;
        if let Some(problem) = super::json::problem(&answer) {
            return Err(Error::Refused(problem.text()));
        }
        let reason = "it answers with something else than JSON".to_owned();
        serde_json::from_slice(&answer.body).map_err(|_| Error::NotADaemon { url: self.url.clone(), reason })
    }

    /// A path that gives JSON.
    pub(super) async fn json(&self, path: &str) -> Result<serde_json::Value, Error> {
        let answer = self.ask(Ask { method: Method::GET, path: path.to_owned(), ..Ask::default() }).await?;
        if let Some(problem) = super::json::problem(&answer) {
            return Err(Error::Refused(problem.text()));
        }
        let other = |reason: String| Error::NotADaemon { url: self.url.clone(), reason };
        if answer.status != 200 {
            return Err(other(format!("it answers {path} with status {}", answer.status)));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| other(format!("it answers {path} with something else than JSON")))
    }
}

impl Connection<'_> {
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Answer, Error> {
        let daemon = self.daemon;
        let lost = |reason: String| Error::Lost { url: daemon.url.clone(), reason };
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", daemon.prefix, ask.path))
            .header(HOST, &daemon.authority)
            .header(ACCEPT, "application/json, */*");
        if let Some(token) = &daemon.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(content_type) = ask.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(key) = ask.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let request = request
            .body(Full::new(ask.body))
            .map_err(|e| Error::Usage(format!("the request cannot be made: {e}")))?;
        self.sender.ready().await.map_err(|e| lost(e.to_string()))?;
        let (head, body) =
            self.sender.send_request(request).await.map_err(|e| lost(e.to_string()))?.into_parts();
        let body =
            Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| lost(e.to_string()))?.to_bytes();
        let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
        let content_type = header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            content_type: content_type.trim().to_ascii_lowercase(),
            call: header("bourse-call-id").map(str::to_owned),
            body,
        })
    }
}

/// Runs until it is done, on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// A text as a part of a path or query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
