//! Which function takes mail for whom. Made with the routes, and swapped with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bourse_wire::options::MailPattern;
use bourse_wire::v1;
use bourse_wire::v1::parameter::Kind;

use super::address::Address;
use super::content::Role;
use crate::bind;
use crate::routes::{RouteConflict, Target};
use crate::signature::Signature;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(BTreeMap<MailPattern, Arc<Target>>);

impl Mailboxes {
    /// As a route would be written; so it stands among those that are held.
    pub(crate) fn text(pattern: &MailPattern) -> String {
        format!("MAIL {pattern}")
    }

    /// The patterns of a function.
    pub(crate) fn wanted(function: &v1::Function) -> Result<Vec<MailPattern>, String> {
        function.options.get("mail").map_or(Ok(Vec::new()), |json| MailPattern::from_json(json))
    }

    pub(crate) fn add(&mut self, pattern: MailPattern, target: &Arc<Target>) -> Result<(), RouteConflict> {
        let function = || target.name.to_string();
        if let Some(first) = self.0.get(&pattern) {
            let (first, second) = (first.name.to_string(), function());
            return Err(RouteConflict::Taken { pattern: Self::text(&pattern), first, second });
        }
        let sample = roles(&target.signature).into_iter().map(|(role, name)| (name, role.sample())).collect();
        if let Err(failure) = bind::named(&target.signature, sample) {
            return Err(RouteConflict::Mail { function: function(), reason: failure.message });
        }
        self.0.insert(pattern, Arc::clone(target));
        Ok(())
    }

    /// The function that takes mail for an address.
    pub(crate) fn find(&self, address: &Address) -> Option<&Arc<Target>> {
        let patterns = MailPattern::matching(&address.local, &address.domain);
        patterns.iter().find_map(|pattern| self.0.get(pattern))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MailPattern, &Arc<Target>)> {
        self.0.iter()
    }
}

/// What a function is called with, and which parameter gets it: by name, or all that there is to its one parameter.
pub(crate) fn roles(signature: &Signature) -> Vec<(Role, &str)> {
    let any = signature.takes(Kind::VarNamed);
    let named = Role::ALL.into_iter().filter(|role| any || signature.position(role.name()).is_some());
    let named: Vec<(Role, &str)> = named.map(|role| (role, role.name())).collect();
    if !named.is_empty() {
        return named;
    }
    let plain: Vec<_> = signature.parameters.iter().filter(|p| !p.is_variadic()).collect();
    let required: Vec<_> = plain.iter().filter(|p| p.required).collect();
    match (required.as_slice(), plain.as_slice()) {
        ([one], _) => vec![(Role::Mail, &one.name)],
        ([], [one]) => vec![(Role::Mail, &one.name)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Deployed, Held, Routes};

    /// Parameters' names and types.
    type Parameters<'p> = &'p [(&'p str, &'p str)];

    /// Functions with their names, their parameters, and the patterns that they want.
    fn module(name: &str, functions: &[(&str, Parameters<'_>, &str)]) -> Deployed {
        let function = |(name, parameters, mail): &(&str, Parameters<'_>, &str)| v1::Function {
            name: (*name).to_owned(),
            parameters: parameters
                .iter()
                .map(|(name, kind)| v1::Parameter {
                    name: (*name).to_owned(),
                    r#type: (*kind).to_owned(),
                    required: true,
                    ..Default::default()
                })
                .collect(),
            options: [("mail".to_owned(), (*mail).to_owned())].into(),
            ..Default::default()
        };
        let functions = functions.iter().map(function).collect();
        Deployed { module: v1::Module { name: name.to_owned(), functions, ..Default::default() } }
    }

    fn found(routes: &Routes, address: &str) -> String {
        let address = Address::parse(address).unwrap();
        routes.mailboxes().find(&address).map_or("nobody".to_owned(), |target| target.name.to_string())
    }

    #[test]
    fn the_most_specific_takes_it() {
        let one: Parameters<'_> = &[("mail", "dict")];
        let routes = Routes::new(
            &[module(
                "m",
                &[
                    ("exact", one, "\"orders@x\""),
                    ("vip", one, "\"orders+vip@x\""),
                    ("anywhere", one, "[\"orders@*\", \"sales@*\"]"),
                    ("all_of_x", one, "\"*@x\""),
                    ("others", one, "\"*\""),
                ],
            )],
            &[],
        )
        .unwrap();
        for (address, function) in [
            ("Orders@X", "m.exact"),
            ("orders+7@x", "m.exact"),
            ("orders+VIP@x", "m.vip"),
            ("orders@y", "m.anywhere"),
            ("sales@x", "m.anywhere"),
            ("help@x", "m.all_of_x"),
            ("help@y", "m.others"),
            ("postmaster", "m.others"),
        ] {
            assert_eq!(found(&routes, address), function, "{address}");
        }
        assert!(routes.held().contains(&("MAIL orders@x".to_owned(), "m".to_owned())));
    }

    #[test]
    fn of_two_that_want_the_same_the_one_that_has_it_keeps_it() {
        let both = [
            module("a", &[("f", &[("mail", "")], "\"orders@x\"")]),
            module("b", &[("g", &[("mail", "")], "\"ORDERS@x\"")]),
        ];
        let error = Routes::new(&both, &[]).unwrap_err().to_string();
        assert_eq!(error, "b.g: the route \"MAIL orders@x\" already belongs to a.f");
        let held: Held = BTreeSet::from([("MAIL orders@x".to_owned(), "b".to_owned())]);
        let (routes, left_out) = Routes::as_far_as_possible(&both, &[], &held);
        assert_eq!((found(&routes, "orders@x"), left_out.len()), ("b.g".to_owned(), 1));
        assert_eq!(found(&routes, "other@x"), "nobody");
    }

    #[test]
    fn functions_that_cannot_take_a_mail_are_refused() {
        let refused = |parameters: Parameters<'_>| {
            let routes = Routes::new(&[module("m", &[("f", parameters, "\"*\"")])], &[]);
            routes.err().map(|error| error.to_string())
        };
        for parameters in [
            &[][..],
            &[("mail", "dict")],
            &[("anything", "")],
            &[("raw", "bytes"), ("recipient", "str")],
            &[("mail", ""), ("raw", ""), ("envelope", "dict"), ("recipient", "")],
        ] {
            assert_eq!(refused(parameters), None, "{parameters:?}");
        }
        let error = refused(&[("mail", "dict"), ("order", "int")]).unwrap();
        assert!(error.contains("m.f cannot be called with a mail: missing: order"), "{error}");
        let error = refused(&[("mail", "str")]).unwrap();
        assert!(error.contains("mail must be str, not dict"), "{error}");
        assert!(refused(&[("a", ""), ("b", "")]).is_some());
    }
}
