//! What is carried: modules as they describe themselves over there, and how they are described here.

use std::collections::BTreeMap;
use std::str::FromStr;

use bourse_wire::id::FunctionName;
use bourse_wire::v1;
use semver::Version;

/// What crosses of a function's options: how long it takes, and that running it twice does no harm. All others (keys, triggers,
/// routes, retries) hold over there, or would hold twice.
const CROSSES: [&str; 3] = ["timeout", "queue_wait", "idempotent"];

/// A module that is to be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    there: String,
    here: String,
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (there, here) = text.split_once('=').unwrap_or((text, text));
        for name in [there, here] {
            let is_name = format!("{name}.f").parse::<FunctionName>();
            if !is_name.is_ok_and(|function| function.module() == name && !function.is_host()) {
                return Err(format!("{name:?} is not a module's name"));
            }
        }
        Ok(Self { there: there.to_owned(), here: here.to_owned() })
    }
}

/// The name that two modules are to have here, if there is one.
pub(super) fn named_twice(wishes: &[Wish]) -> Option<&str> {
    let twice = |(at, wish): (usize, &Wish)| wishes[..at].iter().any(|other| other.here == wish.here);
    let at = (0..wishes.len()).find(|at| twice((*at, &wishes[*at])))?;
    Some(&wishes[at].here)
}

/// What is wished for, and not served over there.
pub(super) fn absent(wishes: &[Wish], there: &[v1::Module]) -> Vec<String> {
    let is_there = |wish: &&Wish| there.iter().any(|module| module.name == wish.there);
    wishes.iter().filter(|wish| !is_there(wish)).map(|wish| wish.there.clone()).collect()
}

/// A module that is carried.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Carried {
    /// What it is called over there.
    pub there: String,
    /// How it is described here.
    pub description: v1::Module,
}

impl Carried {
    /// Of what is served over there, that which is wished for, in its newest version; by its name here.
    pub(super) fn all(wishes: &[Wish], there: Vec<v1::Module>) -> BTreeMap<String, Self> {
        let version = |module: &v1::Module| Version::parse(&module.version).ok();
        let newest = |wish: &Wish| {
            let versions = there.iter().filter(|module| module.name == wish.there);
            versions
                .max_by_key(|module| version(module))
                .map(|module| (wish.here.clone(), Self::of(wish, module)))
        };
        wishes.iter().filter_map(newest).collect()
    }

    fn of(wish: &Wish, module: &v1::Module) -> Self {
        let mut description = v1::Module { name: wish.here.clone(), ..module.clone() };
        description.options.clear();
        for function in &mut description.functions {
            function.options.retain(|name, _| CROSSES.contains(&name.as_str()));
        }
        Self { there: wish.there.clone(), description }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_carried_without_what_holds_over_there() {
        let options = [("timeout", r#""3s""#), ("exclusive", r#""{key}""#), ("cron", r#""* * * * *""#)];
        let options = options.map(|(name, json)| (name.to_owned(), json.to_owned())).into();
        let function = v1::Function { name: "f".into(), options, ..Default::default() };
        let module = |name: &str, version: &str| v1::Module {
            name: name.into(),
            version: version.into(),
            functions: vec![function.clone()],
            ..Default::default()
        };
        let there = vec![module("a", "1.9.0"), module("a", "1.10.0"), module("b", ""), module("c", "1.0.0")];
        let wishes: [Wish; 3] = ["a=far", "b", "gone"].map(|text| text.parse().unwrap());
        assert_eq!(absent(&wishes, &there), ["gone"]);
        assert_eq!(named_twice(&wishes), None);
        let twice: [Wish; 2] = ["a=b", "b"].map(|text| text.parse().unwrap());
        assert_eq!(named_twice(&twice), Some("b"));
        let carried = Carried::all(&wishes, there);
        assert_eq!(carried.keys().collect::<Vec<_>>(), ["b", "far"]);
        let far = &carried["far"];
        assert_eq!((far.there.as_str(), far.description.name.as_str()), ("a", "far"));
        assert_eq!(far.description.version, "1.10.0");
        assert_eq!(far.description.functions[0].options.keys().collect::<Vec<_>>(), ["timeout"]);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in ["", "a=", "=a", "bourse", "a=bourse"] {
            assert!(bad.parse::<Wish>().is_err(), "{bad}");
        }
    }
}
