//! Who may ask: Host, Origin and the bearer token.
//!
//! A daemon on loopback is reachable from every web page that its user opens. A page on another site names itself
//! in `Origin` or `Sec-Fetch-Site`; one that has its own name resolve to 127.0.0.1 (DNS rebinding) shows in `Host`.

use std::net::{IpAddr, SocketAddr};

use bourse_wire::failure::Code;
use bourse_wire::v1;
use http::header::{self, HeaderMap, HeaderName};
use http::{Uri, Version};

/// How a client shows that it may.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// It need not. On loopback only.
    #[default]
    None,
    /// By `Authorization: Bearer …`.
    Token(String),
}

/// What is asked of a request before it is looked at.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Hosts that are answered to, in lower case; `None` answers to all.
    hosts: Option<Vec<String>>,
    /// Origins besides the daemon's own, in lower case.
    origins: Vec<String>,
    /// The token's hash: comparing hashes takes the same time for any two tokens, of any length.
    token: Option<blake3::Hash>,
}

impl Guard {
    /// `None` if `address` is not loopback and there is no token.
    pub(crate) fn new(
        address: SocketAddr,
        auth: &Auth,
        hosts: &[String],
        origins: &[String],
    ) -> Option<Self> {
        let lower = |texts: &[String]| texts.iter().map(|t| t.to_ascii_lowercase()).collect::<Vec<_>>();
        let loopback = address.ip().is_loopback();
        let token = match auth {
            Auth::Token(token) if !token.is_empty() => Some(blake3::hash(token.as_bytes())),
            _ if loopback => None,
            _ => return None,
        };
        let hosts = loopback.then(|| {
            let mut hosts = lower(hosts);
            hosts.extend([address.ip().to_string(), "localhost".into(), "127.0.0.1".into(), "::1".into()]);
            hosts
        });
        Some(Self { hosts, origins: lower(origins), token })
    }

    /// Whether the token is the gateway's; a function does not see it then.
    pub(crate) fn takes_tokens(&self) -> bool {
        self.token.is_some()
    }

    /// The name in Host, and in an absolute URI.
    pub(crate) fn host(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), v1::Failure> {
        let mut given = headers.get_all(header::HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) if version < Version::HTTP_11 => return Ok(()),
            _ => None,
        };
        let Some(host) = host else {
            return Err(Code::BadRequest.because("a request has exactly one Host header (RFC 9112 §3.2)"));
        };
        let Some(known) = &self.hosts else { return Ok(()) };
        for name in [Some(host), uri.authority().map(|a| a.as_str())].into_iter().flatten().map(without_port)
        {
            if !known.iter().any(|k| k.eq_ignore_ascii_case(name)) {
                return Err(Code::Forbidden
                    .because(format!("the host {name:.64?} is not one that this daemon answers to"))
                    .hint("use localhost or 127.0.0.1, or add the name to `hosts` in bourse.toml"));
            }
        }
        Ok(())
    }

    /// No page of another site.
    pub(crate) fn origin(&self, headers: &HeaderMap) -> Result<(), v1::Failure> {
        const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
        let own = |origin: &[u8]| {
            let host = headers.get(header::HOST).map_or(&b""[..], |h| h.as_bytes());
            let at = |scheme: &[u8]| {
                origin.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host))
            };
            at(b"http://") || at(b"https://")
        };
        let mut origins = headers.get_all(header::ORIGIN).iter().map(|o| o.as_bytes());
        match (origins.next(), origins.next()) {
            (Some(origin), None) if own(origin) || self.knows_origin(origin) => Ok(()),
            (Some(origin), _) => Err(Code::Forbidden
                .because(format!(
                    "pages of {:.64?} may not call this daemon",
                    String::from_utf8_lossy(origin)
                ))
                .hint("add the origin to `origins` in bourse.toml if they should")),
            (None, _)
                if headers
                    .get(SEC_FETCH_SITE)
                    .is_some_and(|s| s.as_bytes().eq_ignore_ascii_case(b"cross-site")) =>
            {
                Err(Code::Forbidden
                    .because("pages of other sites may not call this daemon")
                    .hint("open the address itself instead of following a link to it"))
            }
            (None, _) => Ok(()),
        }
    }

    /// Whether an origin is one of those that may ask beside the daemon's own.
    pub(crate) fn knows_origin(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin))
    }

    /// The bearer token.
    pub(crate) fn token(&self, headers: &HeaderMap) -> Result<(), v1::Failure> {
        let Some(token) = self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|v| {
            let (scheme, given) = v.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(given.trim_ascii())
        });
        match given.map(blake3::hash) {
            Some(hash) if hash == token => Ok(()),
            Some(_) => Err(Code::Unauthorized.because("the token is not this daemon's").hint(TOKEN_HINT)),
            None => Err(Code::Unauthorized.because("a token is needed").hint(TOKEN_HINT)),
        }
    }
}

const TOKEN_HINT: &str = "send `Authorization: Bearer TOKEN` with the daemon's `token` (from bourse.toml, BOURSE_TOKEN or --token)";

/// `localhost:7070` → `localhost`, `[::1]:7070` → `::1`.
fn without_port(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        let end = inner.find(']').filter(|&end| port_or_nothing(&inner[end + 1..]));
        return end.map(|end| &inner[..end]).filter(|ip| ip.parse::<IpAddr>().is_ok()).unwrap_or(host);
    }
    match host.rfind(':') {
        Some(colon) if port_or_nothing(&host[colon..]) => &host[..colon],
        _ => host,
    }
}

fn port_or_nothing(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str, auth: Auth) -> Option<Guard> {
        Guard::new(address.parse().unwrap(), &auth, &["Grid.Example".into()], &["https://app.example".into()])
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn without_a_token_on_loopback_only() {
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert!(guard(open, Auth::None).is_none() && guard(open, Auth::Token(String::new())).is_none());
            assert!(guard(open, Auth::Token("t".into())).is_some());
        }
        assert!(guard("[::1]:1", Auth::None).is_some());
    }

    #[test]
    fn hosts() {
        let guard = guard("127.0.0.1:7070", Auth::None).unwrap();
        let check = |host: &str| guard.host(Version::HTTP_11, &Uri::default(), &headers(&[("host", host)]));
        for good in ["localhost", "LOCALHOST:7070", "127.0.0.1:1", "[::1]", "[::1]:7070", "grid.example:80"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "localhost:a",
            "[localhost]",
            "[::1",
            "user@localhost",
        ] {
            assert_eq!(check(bad).unwrap_err().code, "forbidden", "{bad}");
        }
        let host = |version, pairs: &[(&str, &str)]| guard.host(version, &Uri::default(), &headers(pairs));
        assert_eq!(host(Version::HTTP_11, &[]).unwrap_err().code, "bad_request");
        assert!(host(Version::HTTP_10, &[]).is_ok());
        let mut two = headers(&[("host", "localhost")]);
        two.append("host", "evil.example".parse().unwrap());
        assert_eq!(guard.host(Version::HTTP_10, &Uri::default(), &two).unwrap_err().code, "bad_request");
        let absolute = Uri::from_static("http://evil.example/");
        assert!(guard.host(Version::HTTP_11, &absolute, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn origins() {
        let guard = guard("127.0.0.1:7070", Auth::None).unwrap();
        let check = |pairs: &[(&str, &str)]| {
            let mut all = headers(pairs);
            all.insert("host", "localhost:7070".parse().unwrap());
            guard.origin(&all).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&[("origin", "http://localhost:7070")]));
        assert!(check(&[("origin", "https://APP.example"), ("sec-fetch-site", "cross-site")]));
        assert!(check(&[("sec-fetch-site", "none")]));
        for bad in
            ["null", "", "http://localhost", "http://localhost:3000", "http://evil.example", "localhost:7070"]
        {
            assert!(!check(&[("origin", bad)]), "{bad}");
        }
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn tokens() {
        let guard = guard("0.0.0.0:7070", Auth::Token("secret".into())).unwrap();
        let check = |value: &str| guard.token(&headers(&[("authorization", value)])).is_ok();
        assert!(check("Bearer secret") && check("bearer  secret"));
        for bad in ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "secret"] {
            assert!(!check(bad), "{bad}");
        }
        assert!(guard.token(&HeaderMap::new()).is_err());
    }
}
