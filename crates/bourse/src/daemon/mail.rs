//! The socket for SMTP, from the settings.

use bourse_gateway::{Gateway, smtp};

use crate::config::Config;

/// The most recipients of one mail: as many as RFC 5321 §4.5.3.1.8 wants to be taken.
const RECIPIENTS_MAX: usize = 100;

/// How many connections for mail there may be, where so many files may be open; those for HTTP are the others'.
pub(super) fn connections_max(config: &Config, files: usize) -> usize {
    const SHARE: usize = 8;
    let most = smtp::Limits::default().connections_max.min(files / SHARE).max(1);
    if config.smtp().is_some() { most } else { 0 }
}

/// Binds it, if it is wanted.
pub(super) fn listen(
    gateway: &Gateway,
    config: &Config,
    files: usize,
) -> anyhow::Result<Option<smtp::Listener>> {
    let Some(address) = config.smtp() else { return Ok(None) };
    let tls = match (config.path("smtp_cert"), config.path("smtp_key")) {
        (Some(cert), Some(key)) => {
            let tls = smtp::tls::load(&cert, &key);
            Some(tls.map_err(|e| anyhow::anyhow!("{e}\n  hint: smtp_cert and smtp_key are files in PEM"))?)
        }
        _ => None,
    };
    let smtp = smtp::Config {
        address,
        open: config.flag("smtp_open"),
        hostname: hostname(),
        bytes_max: config.smtp_bytes_max(),
        recipients_max: RECIPIENTS_MAX,
        tls,
        limits: smtp::Limits { connections_max: connections_max(config, files), ..Default::default() },
    };
    let listener = gateway.listen_smtp(smtp).map_err(|e| {
        anyhow::anyhow!("{e}\n  hint: stop what listens there, or name another address with --smtp (port 0 picks a free one)")
    })?;
    Ok(Some(listener))
}

/// What the server greets with.
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if is_plain { name } else { "localhost".to_owned() }
}
