//! Bundles that operators have put on the grid: fetched, unpacked, served, and, where the store is kept, kept.
//!
//! ```text
//! node -> driver: Assigned          what is to be served here
//! driver -> peer: fetch             peer -> driver: bundle
//! gateway, peer -> driver: deploy   what operators want: done where the store is kept
//! driver -> node: the stock         how far each bundle is
//! ```
//!
//! | in the data folder | is |
//! |---|---|
//! | `deployed/NAME/DIGEST/` | the files of a bundle that is served, or is going to be |
//! | `deployed/list` | what was served last: that is served at once when the daemon starts again |
//! | `bundles/DIGEST` | a bundle, at the node that keeps the store |
//! | `deployments.json` | the list of deployments, there |
//!
//! A bundle is served as a folder of its own would be, with requirements of its own. What lies in the served folder counts: a
//! bundle with a module of the same name fails on that node. Whatever goes wrong with a bundle, the one before it is served on.

use std::collections::BTreeMap;

use bourse_node::{DeployChange, Digest, LinkId, Stage, Stocked};
use bourse_wire::failure::Code;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::deploy::What;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::v1;
use bourse_worker::bundle;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Driver;
use super::elsewhere::Reply;
use crate::daemon::deploy::{Places, Planned, Source, ToDeployer};
use crate::daemon::{deploy, deployments, events, views};

/// Most changes of deployments that are under way.
const DEPLOYS_MAX: usize = 100;

/// What is served, or going to be.
#[derive(Default)]
pub(super) struct Bundles {
    wanted: BTreeMap<String, Wanted>,
    /// Who has asked for what to be deployed, and is not answered.
    asked: BTreeMap<u64, (Asker, String, DeployChange)>,
    /// What the node that keeps the store was asked.
    sent: BTreeMap<u64, (LinkId, Reply)>,
    next: u64,
}

struct Wanted {
    digest: Digest,
    /// What was served before: calls may still be running on its files.
    before: Option<Digest>,
    stage: Stage,
    /// It is served, or was until now.
    is_kept: bool,
}

/// Who wants something deployed.
enum Asker {
    Here(Reply),
    There(LinkId, u64),
}

/// What a thread has done.
pub(in crate::daemon) enum Done {
    /// A bundle is unpacked, or not.
    Unpacked { name: String, digest: Digest, result: Result<(), String> },
    /// A bundle is kept, or not.
    Kept { request: u64, result: Result<(), String> },
}

impl Driver {
    /// What was served last is served at once.
    pub(super) fn begin_bundles(&mut self) {
        for (name, digest) in deployments::served(&self.config.data()) {
            self.state
                .bundles
                .wanted
                .insert(name.clone(), Wanted { digest, before: None, stage: Stage::Loading, is_kept: true });
            self.serve_bundle(&name, digest);
        }
        self.tell_stock();
    }

    /// What is to be served here.
    pub(super) fn on_assigned(&mut self, items: Vec<(String, Option<Digest>)>) {
        let takes = self.config.flag("deploys");
        // A name becomes that of a folder: what another node says is not believed.
        for (name, digest) in items.into_iter().filter(|(name, _)| deployments::is_name(name)) {
            let known = self.state.bundles.wanted.get(&name);
            let Some(digest) = digest.filter(|_| takes) else {
                if known.is_some() {
                    self.drop_bundle(&name);
                }
                continue;
            };
            // One that failed is tried again: it was deployed again, or the node that keeps it is back.
            let is_open = |known: &Wanted| matches!(known.stage, Stage::Fetching | Stage::Failed(_));
            if known.is_some_and(|known| known.digest == digest && !is_open(known)) {
                continue;
            }
            let is_kept = known.is_some_and(|known| known.digest == digest && known.is_kept);
            let before = known.and_then(|known| match known.digest == digest || !known.is_kept {
                true => known.before,
                false => Some(known.digest),
            });
            if deployments::folder(&self.config.data(), &name, digest).is_dir() {
                let wanted = Wanted { digest, before, stage: Stage::Loading, is_kept };
                self.state.bundles.wanted.insert(name.clone(), wanted);
                self.serve_bundle(&name, digest);
                continue;
            }
            self.state
                .bundles
                .wanted
                .insert(name.clone(), Wanted { digest, before, stage: Stage::Fetching, is_kept });
            match self.node.link_with_keeper(self.clock.now()) {
                None => {
                    let file = deployments::bundle(&self.config.data(), digest);
                    self.unpack(name, digest, move || std::fs::read(&file).map(Bytes::from));
                }
                Some(Ok(link)) => {
                    let fetch = peer::Fetch { digest: Bytes::copy_from_slice(&digest) };
                    self.send_peer(link, Frame::Fetch(fetch), Bytes::new());
                }
                // It is assigned again when there is a link.
                Some(Err(_)) => {}
            }
        }
        self.tell_stock();
    }

    /// A bundle is unpacked on a thread, once it is there.
    fn unpack(
        &mut self,
        name: String,
        digest: Digest,
        read: impl FnOnce() -> std::io::Result<Bytes> + Send + 'static,
    ) {
        let folder = deployments::folder(&self.config.data(), &name, digest);
        let done = self.to_done.clone();
        tokio::task::spawn_blocking(move || {
            let result = (|| {
                let bytes = read().map_err(|e| e.to_string())?;
                if bytes.is_empty() {
                    return Err("the node that keeps the deployments does not have it".to_owned());
                }
                if bundle::digest(&bytes) != digest {
                    return Err("what came is another bundle than was asked for".to_owned());
                }
                std::fs::create_dir_all(folder.parent().expect("it is below the data"))
                    .map_err(|e| e.to_string())?;
                bundle::unpack(bytes, &folder).map_err(|e| e.to_string())
            })();
            // The driver is gone only when the daemon ends.
            let _ = done.send(Done::Unpacked { name, digest, result });
        });
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Unpacked { name, digest, result } => {
                let wanted = self.state.bundles.wanted.get_mut(&name);
                let Some(wanted) = wanted.filter(|wanted| wanted.digest == digest) else { return };
                match result {
                    Ok(()) => {
                        wanted.stage = Stage::Loading;
                        self.serve_bundle(&name, digest);
                    }
                    Err(why) => {
                        let failure =
                            Code::ModuleFailed.because(format!("the bundle can't be unpacked: {why}"));
                        wanted.stage = Stage::Failed(failure);
                        events::problem(&name, &why, "deploy it again");
                    }
                }
                self.tell_stock();
            }
            Done::Kept { request, result } => {
                let Some((asker, name, change)) = self.state.bundles.asked.remove(&request) else { return };
                let now = self.clock.now();
                let result = result
                    .map_err(|why| Code::Internal.because(format!("the bundle can't be kept: {why}")))
                    .and_then(|()| self.node.change_deployments(now, &name, change));
                self.tell_deployed(asker, result);
            }
        }
    }

    /// Another node wants a bundle.
    pub(super) fn on_fetch(&mut self, link: LinkId, fetch: &peer::Fetch) {
        let digest = Digest::try_from(fetch.digest.as_ref());
        let file = digest.map(|digest| deployments::bundle(&self.config.data(), digest));
        let payload =
            file.ok().and_then(|file| std::fs::read(file).ok()).map(Bytes::from).unwrap_or_default();
        self.send_peer(link, Frame::Bundle(peer::Bundle { digest: fetch.digest.clone() }), payload);
    }

    /// A bundle has come.
    pub(super) fn on_bundle(&mut self, bundle: &peer::Bundle, payload: Bytes) {
        let Ok(digest) = Digest::try_from(bundle.digest.as_ref()) else { return };
        let wants = |wanted: &Wanted| wanted.digest == digest && wanted.stage == Stage::Fetching;
        let names: Vec<String> = self
            .state
            .bundles
            .wanted
            .iter()
            .filter(|(_, w)| wants(w))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let payload = payload.clone();
            self.unpack(name, digest, move || Ok(payload));
        }
    }

    fn serve_bundle(&mut self, name: &str, digest: Digest) {
        let root = deployments::folder(&self.config.data(), name, digest);
        let places = Places { root, ..self.places.clone() };
        let source = Source::Bundle(name.to_owned(), digest);
        if let Some(known) = self.sources.get(&source) {
            // It is looked at once more; until then what was found there stays.
            known.deployer.send(ToDeployer::Look).ok();
            return;
        }
        match deploy::start(source.clone(), places, self.from_deployers.clone()) {
            Ok(deployer) => {
                deployer.send(ToDeployer::Look).ok();
                self.sources.insert(source, Deploying { deployer, planned: None });
            }
            Err(error) => self.bundle_failed(name, &error.to_string()),
        }
    }

    fn bundle_failed(&mut self, name: &str, why: &str) {
        if let Some(wanted) = self.state.bundles.wanted.get_mut(name) {
            wanted.stage = Stage::Failed(Code::ModuleFailed.because(why.to_owned()));
        }
    }

    fn drop_bundle(&mut self, name: &str) {
        self.state.bundles.wanted.remove(name);
        self.sources.retain(|source, _| !matches!(source, Source::Bundle(of, _) if of == name));
        self.keep_served();
        self.deploy_all();
        deployments::clear(&self.config.data(), name, &[]);
    }

    /// All modules that there are: those of the folder, and those of bundles which that does not have.
    pub(super) fn planned(&mut self) -> Vec<Planned> {
        let mut all: BTreeMap<String, Planned> = BTreeMap::new();
        let mut taken = Vec::new();
        // The folder comes first.
        for (source, deploying) in &self.sources {
            for plan in deploying.planned.iter().flatten() {
                match all.get(&plan.found.name) {
                    // A newer bundle's plan takes the place of the one before it.
                    None => _ = all.insert(plan.found.name.clone(), plan.clone()),
                    Some(_) => taken.push((source.clone(), plan.found.name.clone())),
                }
            }
        }
        for (source, module) in taken {
            if let Source::Bundle(name, digest) = source
                && self.state.bundles.wanted.get(&name).is_some_and(|wanted| wanted.digest == digest)
            {
                let why =
                    format!("this node has another module {module}, in its folder or of another bundle");
                self.bundle_failed(&name, &why);
            }
        }
        all.into_values().collect()
    }

    /// A bundle was looked at: it takes the place of the one before it.
    pub(super) fn on_bundle_planned(&mut self, name: &str, digest: Digest, planned: &[Planned]) {
        if planned.is_empty() {
            return self.bundle_failed(name, "there is no module in it");
        }
        let is_older =
            |source: &Source| matches!(source, Source::Bundle(of, other) if of == name && *other != digest);
        self.sources.retain(|source, _| !is_older(source));
    }

    /// How far each bundle is, as the node serves what is in it.
    pub(super) fn tell_stock(&mut self) {
        if !self.state.bundles.wanted.is_empty() {
            self.look_at_bundles();
        }
        let item = |(name, wanted): (&String, &Wanted)| Stocked {
            name: name.clone(),
            digest: wanted.digest,
            stage: wanted.stage.clone(),
        };
        let items: Vec<Stocked> = self.state.bundles.wanted.iter().map(item).collect();
        let closed = !self.config.flag("deploys");
        let labels = self.config.list("labels");
        self.node.set_stock(self.clock.now(), labels, closed, &items);
    }

    fn look_at_bundles(&mut self) {
        let modules: BTreeMap<String, _> = self.node.modules().map(|m| (m.name.clone(), m)).collect();
        let mut is_new = false;
        for (name, wanted) in &mut self.state.bundles.wanted {
            if !matches!(wanted.stage, Stage::Loading | Stage::Serving) {
                continue;
            }
            let source = Source::Bundle(name.clone(), wanted.digest);
            let planned = self.sources.get(&source).and_then(|deploying| deploying.planned.as_ref());
            let Some(planned) = planned else { continue };
            let mut stage = Stage::Serving;
            for plan in planned {
                let Some(module) = modules.get(&plan.found.name) else { continue };
                let serves = module.serving.as_ref().is_some_and(|(revision, _)| *revision == plan.revision);
                match &module.failure {
                    _ if serves && !module.elsewhere => {}
                    _ if module.loading => stage = Stage::Loading,
                    Some(failure) if failure.message == events::NO_FUNCTIONS => {}
                    Some(failure) => {
                        stage = Stage::Failed(failure.clone());
                        break;
                    }
                    None => stage = Stage::Loading,
                }
            }
            is_new |= stage == Stage::Serving && !wanted.is_kept;
            wanted.is_kept |= stage == Stage::Serving;
            wanted.stage = stage;
        }
        if is_new {
            self.keep_served();
        }
    }

    /// Keeps what is served, and nothing that was before.
    fn keep_served(&self) {
        let kept = || self.state.bundles.wanted.iter().filter(|(_, wanted)| wanted.is_kept);
        let served: Vec<(&str, Digest)> =
            kept().map(|(name, wanted)| (name.as_str(), wanted.digest)).collect();
        if let Err(error) = deployments::keep_served(&self.config.data(), &served) {
            tracing::error!("{error:#}; what is deployed is fetched again when this node starts again");
        }
        for (name, wanted) in kept() {
            let but: Vec<Digest> = wanted.before.into_iter().chain([wanted.digest]).collect();
            deployments::clear(&self.config.data(), name, &but);
        }
    }

    // ------------------------------------------------------------ what operators want

    /// Somebody wants something deployed, or not any more.
    pub(super) fn on_deploy(&mut self, name: String, asked: bourse_gateway::Deploy, reply: Reply) {
        let mut deploy = peer::Deploy { name, ..Default::default() };
        let mut payload = Bytes::new();
        deploy.what = Some(match asked {
            bourse_gateway::Deploy::Put { bundle, count, labels, canary } => {
                payload = bundle;
                let (count, canary) = (count.unwrap_or(0), canary.unwrap_or(0));
                What::Put(peer::deploy::Put { count, labels, canary })
            }
            bourse_gateway::Deploy::Remove => What::Remove(true),
            bourse_gateway::Deploy::Rollback => What::Rollback(true),
            bourse_gateway::Deploy::Promote => What::Promote(true),
        });
        match self.node.link_with_keeper(self.clock.now()) {
            None => self.deploy_here(Asker::Here(reply), deploy, payload),
            Some(Err(failure)) => drop(reply.send(Err(failure))),
            Some(Ok(link)) => {
                self.state.bundles.next += 1;
                deploy.request = self.state.bundles.next;
                self.state.bundles.sent.insert(deploy.request, (link, reply));
                self.send_peer(link, Frame::Deploy(deploy), payload);
            }
        }
    }

    /// Another node's operator wants something deployed.
    pub(super) fn on_peer_deploy(&mut self, link: LinkId, deploy: peer::Deploy, payload: Bytes) {
        let asker = Asker::There(link, deploy.request);
        self.deploy_here(asker, deploy, payload);
    }

    fn deploy_here(&mut self, asker: Asker, deploy: peer::Deploy, payload: Bytes) {
        if self.node.link_with_keeper(self.clock.now()).is_some() {
            let failure =
                Code::StoreUnavailable.because("the node that was asked does not keep the grid's store");
            return self.tell_deployed(asker, Err(failure));
        }
        let some = |count: u32| (count > 0).then_some(count);
        let change = match deploy.what {
            Some(What::Put(put)) => {
                let (count, canary) = (some(put.count), some(put.canary));
                DeployChange::Put { digest: bundle::digest(&payload), count, labels: put.labels, canary }
            }
            Some(What::Remove(_)) => DeployChange::Remove,
            Some(What::Rollback(_)) => DeployChange::Rollback,
            Some(What::Promote(_)) => DeployChange::Promote,
            None => return self.tell_deployed(asker, Err(Code::Protocol.because("it asks for nothing"))),
        };
        let now = self.clock.now();
        let DeployChange::Put { digest, .. } = &change else {
            let result = self.node.change_deployments(now, &deploy.name, change);
            return self.tell_deployed(asker, result);
        };
        if let Err(failure) = check_put(&deploy.name, payload.clone()) {
            return self.tell_deployed(asker, Err(failure));
        }
        if self.state.bundles.asked.len() >= DEPLOYS_MAX {
            let failure = Code::QueueFull.because(format!("{DEPLOYS_MAX} deployments are on their way"));
            return self.tell_deployed(asker, Err(failure));
        }
        self.state.bundles.next += 1;
        let request = self.state.bundles.next;
        let file = deployments::bundle(&self.config.data(), *digest);
        self.state.bundles.asked.insert(request, (asker, deploy.name, change));
        let done = self.to_done.clone();
        tokio::task::spawn_blocking(move || {
            let result = deployments::keep_bundle(&file, &payload).map_err(|e| format!("{e:#}"));
            let _ = done.send(Done::Kept { request, result });
        });
    }

    fn tell_deployed(&mut self, asker: Asker, result: Result<(), v1::Failure>) {
        match asker {
            // Whoever asked may have gone.
            Asker::Here(reply) => {
                drop(reply.send(result.map(|()| json!({"deployments": views::deployments(&self.node)}))))
            }
            Asker::There(link, request) => {
                let deployed = peer::Deployed { request, failure: result.err() };
                self.send_peer(link, Frame::Deployed(deployed), Bytes::new());
            }
        }
    }

    /// What was asked of the node that keeps the store is done, or not.
    pub(super) fn on_deployed(&mut self, link: LinkId, deployed: peer::Deployed) {
        if self.state.bundles.sent.get(&deployed.request).is_none_or(|(over, _)| *over != link) {
            return;
        }
        let Some((_, reply)) = self.state.bundles.sent.remove(&deployed.request) else { return };
        let _ = reply.send(match deployed.failure {
            None => Ok(Value::Object(Default::default())),
            Some(failure) => Err(failure),
        });
    }

    /// A link is over: what was asked over it is not answered.
    pub(super) fn lose_deploys(&mut self, link: LinkId) {
        for (_, (_, reply)) in self.state.bundles.sent.extract_if(.., |_, (over, _)| *over == link) {
            let failure = Code::StoreUnavailable
                .because("the node that keeps the deployments was lost before it had answered")
                .hint("bourse deployments shows what there is");
            let _ = reply.send(Err(failure));
        }
    }

    /// Keeps the list of deployments, and the bundles that are on it.
    pub(super) fn keep_deployments(&self, all: &[bourse_node::Deployment]) {
        if let Err(error) = deployments::save(&self.config.data(), all) {
            tracing::error!("{error:#}; when this node starts again it knows older deployments");
        }
    }
}

/// Where modules come from, and what there is.
pub(in crate::daemon) struct Deploying {
    pub(in crate::daemon) deployer: std::sync::mpsc::Sender<ToDeployer>,
    pub(in crate::daemon) planned: Option<Vec<Planned>>,
}

/// Whether a bundle can be taken at all.
fn check_put(name: &str, payload: Bytes) -> Result<(), v1::Failure> {
    let is_name = deployments::is_name(name);
    match () {
        () if !is_name => Err(Code::BadRequest
            .because(format!("{name:.100} can't be the name of a deployment"))
            .hint("letters, digits, - and _, at most 100 of them")),
        () if payload.is_empty() => Err(Code::BadRequest.because("the bundle is missing: it is the body")),
        () => bundle::check(payload).map_err(|why| {
            Code::BadRequest
                .because(why.to_string())
                .hint("`bourse deploy PATH` makes one of a file or a folder")
        }),
    }
}
