//! Tables of `bourse.toml` with the settings of one thing: `relay` in `[mail]` is the setting `mail_relay`.

use std::collections::BTreeMap;

use super::known::{SETTINGS, Setting, THINGS};
use super::resolve::{Error, nearest};
use super::value;

/// Hands over the settings in the tables of single things; the secrets of webhooks' hosts.
pub(super) fn read_things(
    file: &toml::Table,
    place: &str,
    mut take: impl FnMut(&'static Setting, String),
) -> Result<BTreeMap<String, String>, Error> {
    let mut secrets = BTreeMap::new();
    for thing in THINGS {
        let Some(toml::Value::Table(table)) = file.get(*thing) else { continue };
        for (name, given) in table {
            let bad =
                |reason| Error::Bad { place: format!("{place}, [{thing}]"), name: name.clone(), reason };
            if (*thing, name.as_str()) == ("webhook", "secrets") {
                let hosts = given.as_table().ok_or_else(|| bad("it is not a table".to_owned()))?;
                for (host, secret) in hosts {
                    let secret = secret.as_str().ok_or_else(|| bad(format!("{host} has no text")))?;
                    secrets.insert(host.to_ascii_lowercase(), secret.to_owned());
                }
                continue;
            }
            let names = || {
                SETTINGS.iter().filter_map(|s| s.of_thing().filter(|of| of.0 == *thing).map(|of| (of.1, s)))
            };
            let setting =
                names().find(|(own, _)| own == name).map(|(_, setting)| setting).ok_or_else(|| {
                    let near = nearest(name, names().map(|(own, _)| own));
                    Error::Unknown { place: format!("{place}, [{thing}]"), name: name.clone(), near }
                })?;
            take(setting, value::from_toml(setting, given).map_err(bad)?);
        }
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<String>, BTreeMap<String, String>), Error> {
        let mut taken = Vec::new();
        let file = text.parse().expect("TOML");
        let secrets = read_things(&file, "x", |s, text| taken.push(format!("{}={text}", s.name)))?;
        Ok((taken, secrets))
    }

    #[test]
    fn their_names_are_those_of_settings() {
        let text = "[mail]\nrelay = \"smtp://x\"\n[webhook]\nsecret = [\"a\", \"b\"]\n[webhook.secrets]\n\"X.example\" = \"c\"";
        let (taken, secrets) = read(text).unwrap();
        assert_eq!(taken, ["webhook_secret=a,b", "mail_relay=smtp://x"]);
        assert_eq!(secrets["x.example"], "c");
        for bad in [
            "[mail]\nrelya = \"x\"",
            "[mail]\nrelay = 3",
            "[webhook]\nreach = \"far\"",
            "[webhook.secrets]\nx = 1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
