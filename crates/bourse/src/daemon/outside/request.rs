//! One HTTP request: name, connection, TLS, answer. No connection is kept for another one, and no redirect is followed.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Reach, hopeless, undelivered};

/// What is read of an answer's body, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long one of several addresses has to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// hyper's buffer for an answer's head.
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// An absolute URL that a request can go to.
pub(super) struct Target {
    uri: Uri,
    pub host: String,
    port: u16,
    secure: bool,
}

/// What came back.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What requests share: the certificates that are trusted.
#[derive(Default)]
pub(super) struct Client {
    tls: OnceLock<Result<TlsConnector, String>>,
}

impl Target {
    /// Reads a URL; says what is wrong with it.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{url:.200?} is not a URL: {e}"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{url:.200?} does not begin with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url:.200?} has no host"))?;
        if authority.as_str().contains('@') {
            return Err("a name and password do not belong into a URL: send a header".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ok(Self { uri, host, port, secure })
    }
}

impl Client {
    /// Sends a request and reads the answer. Whoever calls bounds the time.
    pub(super) async fn send(
        &self,
        target: &Target,
        reach: Reach,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, v1::Failure> {
        let stream = connect(target, reach).await?;
        if !target.secure {
            return exchange(stream, target, method, headers, body).await;
        }
        let tls = self.tls()?;
        let name = ServerName::try_from(target.host.clone()).map_err(|_| {
            hopeless(Code::BadArguments.because(format!("{:?} has no certificate", target.host)))
        })?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|e| undelivered(format!("no secure connection to {}: {e}", target.host)))?;
        exchange(stream, target, method, headers, body).await
    }

    fn tls(&self) -> Result<&TlsConnector, v1::Failure> {
        let made = self.tls.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = rustls::RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(format!("{:?}", found.errors));
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(TlsConnector::from(Arc::new(config)))
        });
        made.as_ref().map_err(|why| {
            Code::Internal
                .because(format!("there are no certificates to trust: {why}"))
                .hint("install the package ca-certificates, or set SSL_CERT_FILE, and restart the daemon")
        })
    }
}

async fn connect(target: &Target, reach: Reach) -> Result<TcpStream, v1::Failure> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let found =
        found.map_err(|e| undelivered(format!("the name {:?} does not resolve: {e}", target.host)))?;
    let all: Vec<SocketAddr> = found.collect();
    let allowed: Vec<_> = all.iter().filter(|address| reach.covers(address.ip())).collect();
    if allowed.is_empty() && !all.is_empty() {
        return Err(Code::Forbidden
            .because(format!("{} is at {}, where webhooks may not go", target.host, all[0].ip()))
            .hint("set `reach` in [webhook] of bourse.toml if they should"));
    }
    let mut last = format!("the name {:?} has no address", target.host);
    for address in &allowed {
        let attempt = TcpStream::connect(address);
        let outcome =
            if allowed.len() == 1 { Ok(attempt.await) } else { timeout(CONNECT_MAX, attempt).await };
        match outcome {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => last = format!("no connection to {address}: {e}"),
            Err(_) => last = format!("no connection to {address} within {CONNECT_MAX:?}"),
        }
    }
    Err(undelivered(last))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, v1::Failure> {
    let broke = |e: hyper::Error| undelivered(format!("the request to {} broke off: {e}", target.host));
    let mut http = hyper::client::conn::http1::Builder::new();
    http.max_buf_size(BUFFER_BYTES_MAX);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let mut request = http::Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    *request.uri_mut() =
        target.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |p| p.clone().into());
    if let Some(host) = target.uri.authority().and_then(|a| http::HeaderValue::from_str(a.as_str()).ok()) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let answer = async {
        let response = sender.send_request(request).await.map_err(broke)?;
        let (head, mut body) = response.into_parts();
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broke)?.into_data() else { continue };
            let room = ANSWER_BYTES_MAX - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if read.len() == ANSWER_BYTES_MAX {
                break; // The rest is of no interest.
            }
        }
        Ok(Answer { status: head.status, headers: head.headers, body: read.into() })
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        done = &mut answer => done,
        // What it has read before it ended is still to be taken.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("https://Hooks.Example:8443/a?b=c").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.secure), ("hooks.example", 8443, true));
        let target = Target::parse("http://[::1]/x").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.secure), ("::1", 80, false));
        for bad in ["", "/x", "hooks.example", "ftp://x/", "http://", "https://user:secret@x/", "http://a b/"]
        {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
