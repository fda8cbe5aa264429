//! Percent-encoding (RFC 3986 §2.1), strictly: a stray `%` and invalid UTF-8 are refused.

use std::borrow::Cow;

/// The most parameters a query may have.
pub(crate) const QUERY_PARAMETERS_MAX: usize = 256;

/// What is wrong with a request's path or query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a % that is not followed by two hexadecimal digits")]
    Percent,
    #[error("percent-encoded bytes that are not UTF-8")]
    Utf8,
    #[error("a path that climbs, is absolute, or holds a NUL")]
    Climbs,
    #[error("a query of more than {QUERY_PARAMETERS_MAX} parameters")]
    TooMany,
}

/// Decodes a segment of a path.
pub(crate) fn decode(raw: &str) -> Result<Cow<'_, str>, Error> {
    let bytes = raw.as_bytes();
    let Some(first) = bytes.iter().position(|&b| b == b'%') else { return Ok(Cow::Borrowed(raw)) };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&b, after)) = rest.split_first() {
        rest = if b == b'%' {
            let (digits, after) = after.split_first_chunk::<2>().ok_or(Error::Percent)?;
            out.push(nibble(digits[0])? << 4 | nibble(digits[1])?);
            after
        } else {
            out.push(b);
            after
        };
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Error::Utf8)
}

fn nibble(digit: u8) -> Result<u8, Error> {
    char::from(digit).to_digit(16).map(|n| n as u8).ok_or(Error::Percent)
}

/// Decodes a query: `a=1&b=x+y`.
pub(crate) fn query(raw: Option<&str>) -> Result<Vec<(String, String)>, Error> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let mut pairs = Vec::new();
    for part in raw.split('&').filter(|part| !part.is_empty()) {
        if pairs.len() == QUERY_PARAMETERS_MAX {
            return Err(Error::TooMany);
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let text = |t: &str| decode(&t.replace('+', " ")).map(Cow::into_owned);
        pairs.push((text(name)?, text(value)?));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict() {
        assert_eq!(decode("a%2Fb%c3%9f").unwrap(), "a/bß");
        for bad in ["%", "%2", "%zz", "a%%20", "%+1"] {
            assert_eq!(decode(bad), Err(Error::Percent), "{bad}");
        }
        assert_eq!(decode("%ff"), Err(Error::Utf8));
        let pairs = query(Some("a=1+2&&b&c=%3D=")).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "1 2"), ("b", ""), ("c", "==")]);
        assert_eq!(query(Some(&"a&".repeat(257))), Err(Error::TooMany));
    }
}
