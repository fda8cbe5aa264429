//! Settings about mail that comes in.

use std::net::SocketAddr;

use super::resolve::{Config, Error};
use super::value;

impl Config {
    /// Where mail is taken, if it is.
    pub(crate) fn smtp(&self) -> Option<SocketAddr> {
        value::address(self.text("smtp"))
    }

    /// The largest mail, in bytes.
    pub(crate) fn smtp_bytes_max(&self) -> usize {
        value::size(self.text("smtp_bytes_max")).expect("a size is checked when it is given")
    }

    /// Mail carries no token: that others may send it has to be said.
    pub(super) fn check_mail(&self) -> Result<(), Error> {
        if let Some(smtp) = self.smtp().filter(|smtp| !smtp.ip().is_loopback())
            && !self.flag("smtp_open")
        {
            return Err(Error::OpenMail { address: smtp.to_string() });
        }
        match self.text("smtp_cert").is_empty() == self.text("smtp_key").is_empty() {
            true => Ok(()),
            false => Err(Error::HalfTls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[(&str, &str)]) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let flags = flags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Config::resolve(folder.path(), &flags, std::iter::empty())
    }

    #[test]
    fn mail_from_others_has_to_be_wanted() {
        assert_eq!(resolve(&[]).unwrap().smtp(), None);
        assert!(resolve(&[("smtp", "127.0.0.1:0")]).is_ok());
        assert!(matches!(resolve(&[("smtp", ":25")]), Err(Error::OpenMail { .. })));
        assert!(resolve(&[("smtp", ":25"), ("smtp_open", "true")]).is_ok());
        assert!(matches!(resolve(&[("smtp_cert", "a.pem")]), Err(Error::HalfTls)));
        assert!(resolve(&[("smtp_bytes_max", "0")]).is_err());
        assert_eq!(resolve(&[("smtp_bytes_max", "1MiB")]).unwrap().smtp_bytes_max(), 1 << 20);
    }
}
