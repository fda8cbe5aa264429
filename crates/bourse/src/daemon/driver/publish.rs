//! What is served, and at which routes: settings, routes, readiness.
//!
//! What cannot be used is reported, once as long as it lasts, and keeps nothing else from being served.

use std::collections::{BTreeMap, BTreeSet};

use bourse_gateway::{Deployed, LeftOut, Routes};
use bourse_node::RevisionId;
use bourse_wire::id::FunctionName;
use bourse_wire::v1;
use bourse_worker::scan;

use super::{Driver, Planned};
use crate::config::known;
use crate::daemon::{events, outside};

impl Driver {
    /// Settings and routes as they are now. What cannot be used is reported, and what was there before counts.
    pub(super) fn read_settings(&mut self, planned: &[Planned]) {
        let mut problems = Vec::new();
        match self.config.again() {
            Ok(again) => {
                for name in self.config.waiting_for_restart(&again) {
                    let hint = "restart the daemon for it";
                    problems.push((
                        "bourse.toml".to_owned(),
                        format!("{name} changes with the next start"),
                        hint,
                    ));
                }
                for (name, value) in self.config.changed(&again) {
                    tracing::info!(
                        "bourse.toml: {name} is {} now",
                        match value {
                            "" => "unset",
                            _ if known::SECRETS.contains(&name) => "another",
                            value => value,
                        }
                    );
                }
                for (name, source) in self.config.outdone(&again) {
                    tracing::warn!("bourse.toml: {name} changes nothing: it is set by the {source}");
                }
                self.config.take_over(again);
                self.outside.configure(outside::Settings::from(&self.config));
            }
            Err(error) => problems.push(("settings".to_owned(), error.to_string(), "they stay as they were")),
        }
        for plan in planned {
            let name = &plan.found.name;
            let options = &plan.found.settings.options;
            if let Err(error) =
                self.config.set_module(name, &self.places.root.join(scan::SETTINGS_FILE), options)
            {
                problems.push((
                    name.clone(),
                    error.to_string(),
                    "its settings stay as they were until that is mended",
                ));
            }
        }
        self.report("settings", problems);
    }

    /// Tells of problems of one kind, each once as long as it lasts.
    fn report(&mut self, kind: &str, problems: Vec<(String, String, &str)>) {
        let now: BTreeSet<_> = problems.iter().map(|(_, text, _)| (kind.to_owned(), text.clone())).collect();
        for (about, text, hint) in problems {
            if !self.state.reported.contains(&(kind.to_owned(), text.clone())) {
                events::problem(&about, &text, hint);
            }
        }
        self.state.reported.retain(|(of, _)| of != kind);
        self.state.reported.extend(now);
    }

    pub(super) fn publish(&mut self, modules: Vec<(v1::Module, RevisionId)>, elsewhere: Vec<v1::Module>) {
        let current: BTreeSet<_> = modules.iter().map(|(m, r)| (m.name.clone(), r.clone())).collect();
        let loading: BTreeSet<_> = self.state.templates.values().cloned().collect();
        // A plan is needed as long as something may be started from it.
        if self.state.plans.len() > PLANS_MAX {
            self.state.plans.retain(|key, _| current.contains(key) || loading.contains(key));
        }
        self.state.published = modules.into_iter().map(|(module, _)| module).collect();
        self.state.elsewhere = elsewhere;
        self.set_routes();
        self.check_all_ready();
    }

    /// Tells the gateway what is served, and at which routes.
    pub(super) fn set_routes(&mut self) {
        const PLACE: &str = "[routes]";
        let published = self.state.published.iter().cloned().chain([bourse_node::host_module()]);
        // What is served here has its routes before what other nodes serve.
        let all = published.chain(self.state.elsewhere.iter().cloned());
        let served: Vec<Deployed> = all.map(|module| Deployed { module }).collect();
        let has = |name: &FunctionName| {
            let mut all = self.state.published.iter().chain(&self.state.elsewhere);
            let module = all.find(|m| m.name == name.module());
            module.is_some_and(|m| m.functions.iter().any(|f| f.name == name.function()))
        };
        let mut problems = Vec::new();
        let mut extra = Vec::new();
        for (route, function) in &self.config.routes {
            match function.parse::<FunctionName>() {
                Ok(name) if has(&name) => extra.push((route.clone(), name)),
                // It joins when its function comes, which may be on its way.
                Ok(_) if !self.state.ready => {}
                Ok(_) => {
                    let text = format!("{route:?} leads to {function}, which is not there");
                    problems.push((PLACE.to_owned(), text, "it is served as soon as the function is"));
                }
                Err(error) => {
                    problems.push((PLACE.to_owned(), format!("{route:?} = {function:?}: {error}"), ""))
                }
            }
        }
        let failures = self.node.modules().filter(|m| m.serving.is_none());
        let failures: BTreeMap<_, _> = failures.filter_map(|m| Some((m.name, m.failure?))).collect();
        // Whatever is wrong with one route is not to keep the others from being served.
        let (routes, left_out) = Routes::as_far_as_possible(&served, &extra, &self.state.held);
        for LeftOut { module, why } in left_out {
            let hint = "it is left out; functions can be called at /v1/call/{module.function}";
            problems.push((module.unwrap_or_else(|| PLACE.to_owned()), why.to_string(), hint));
        }
        // What other nodes serve keeps no route from what comes here.
        let is_own = |module: &String| self.state.elsewhere.iter().all(|m| m.name != *module);
        self.state.held = routes.held();
        self.state.held.retain(|(_, module)| is_own(module));
        self.gateway.set_routes(routes.with_failures(failures));
        self.report(PLACE, problems);
    }

    /// Everything is loaded, and what a developer's process is to attach is there.
    pub(super) fn check_all_ready(&mut self) {
        let attached = self.config.list("attached");
        let is_there = |name: &String| self.state.published.iter().any(|m| m.name == *name);
        if self.state.loaded && !self.state.ready && attached.iter().all(is_there) {
            self.on_ready();
        }
    }

    fn on_ready(&mut self) {
        self.state.ready = true;
        self.gateway.set_ready(true);
        self.set_routes();
        let is_alone = self.peers.is_none();
        events::ready(&self.contact, &self.state.published, &self.state.held, self.node.modules(), is_alone);
        let lines = [Some(&self.contact.http), self.contact.smtp.as_ref()];
        let lines: String = lines.into_iter().flatten().map(|line| format!("{line}\n")).collect();
        if let Some(path) = &self.ready_file
            && let Err(error) = std::fs::write(path, lines)
        {
            tracing::error!("the ready file {} cannot be written: {error}", path.display());
        }
    }
}

/// Plans that are kept although they may not be needed any more.
const PLANS_MAX: usize = 10_000;
