//! How things look in a trace: one line each.

use bourse_durable::batch::{Batch, Op};
use bourse_durable::work::Seen;
use bourse_durable::{StoreAnswer, StoreRequest};
use bourse_node::{Event, Input, Output, PeerId};
use bourse_wire::id::CallId;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

/// A batch, and what became of it.
pub(crate) fn batch(batch: &Batch, how: &str) -> String {
    let ops: Vec<String> = batch.ops.iter().map(op).collect();
    let owner = batch.owner;
    format!(
        "p{} life {} fence {} seq {} {how}: [{}]",
        batch.partition.0,
        owner.node,
        owner.fence.0,
        owner.seq.0,
        ops.join(", ")
    )
}

fn op(op: &Op) -> String {
    match op {
        Op::Put { key: bytes, .. } => format!("+{}", key(bytes)),
        Op::Delete { key: bytes } => format!("-{}", key(bytes)),
    }
}

fn key(key: &[u8]) -> String {
    let call = || match key.first() {
        Some(b'o') => CallId::from_wire(key.get(2..18)?),
        _ => CallId::from_wire(key.get(key.len().checked_sub(16)?..)?),
    };
    match (key.first(), call()) {
        (Some(b's' | b'u'), _) | (_, None) => String::from_utf8_lossy(key).replace('\0', ":"),
        (Some(kind), Some(call)) => format!("{} {call}", char::from(*kind)),
        (None, _) => String::new(),
    }
}

/// What the node asks of the store.
fn request(request: &StoreRequest) -> String {
    match request {
        StoreRequest::Commit(b) => batch(b, "is to land"),
        StoreRequest::Owner(partition) => format!("who owns p{}?", partition.0),
        StoreRequest::Read { partition, key: bytes } => format!("read p{} {}", partition.0, key(bytes)),
        StoreRequest::Scan { partition, start, .. } => format!("scan p{} from {}", partition.0, key(start)),
    }
}

/// What the store says.
pub(crate) fn answer(answer: &StoreAnswer) -> String {
    match answer {
        StoreAnswer::Committed(outcome) => format!("{outcome:?}"),
        StoreAnswer::Owner(owner) => format!("owner {owner:?}"),
        StoreAnswer::Read(Ok(row)) => format!("a record: {}", row.is_some()),
        StoreAnswer::Scanned(Ok(page)) => format!("{} rows, more: {}", page.rows.len(), page.more),
        StoreAnswer::Read(Err(e)) | StoreAnswer::Scanned(Err(e)) => e.to_string(),
    }
}

/// What the node wants done.
pub(crate) fn output(output: &Output) -> String {
    match output {
        Output::Send { peer, message, payload } => {
            format!("node -> worker {}  {}", peer.0, to_worker(message, payload))
        }
        Output::Close { peer } => format!("node closes {}", peer.0),
        Output::Reply { ticket, answer } => {
            let call = answer.call.map_or_else(|| "-".to_owned(), |call| call.to_string());
            match &answer.result {
                Ok(success) => format!("node -> gateway  reply {} {call} {:?}", ticket.0, success.payload),
                Err(failure) => {
                    format!("node -> gateway  reply {} {call}{}", ticket.0, failed(Some(failure)))
                }
            }
        }
        Output::Told { ticket, told } => match told {
            Ok(seen) => format!("node -> gateway  told {}: {}", ticket.0, standing(seen)),
            Err(failure) => format!("node -> gateway  told {}:{}", ticket.0, failed(Some(failure))),
        },
        Output::StartTemplate { process, module, .. } => {
            format!("node -> keeper  start {} as template of {module}", process.0)
        }
        Output::StartInstance { process, module, .. } => {
            format!("node -> keeper  start {} of {module}", process.0)
        }
        Output::Kill { process } => format!("node -> keeper  kill {}", process.0),
        Output::Store { token, request: asked } => format!("node -> disk  {} {}", token.0, request(asked)),
        Output::Event(Event::Note { text, .. }) => format!("note: {text}"),
        Output::Event(Event::Retried { call, attempt, failure, after, .. }) => {
            format!("{call} #{attempt} is tried again in {after:?}:{}", failed(Some(failure)))
        }
        Output::Event(Event::DeadLettered { call, attempt, failure, .. }) => {
            format!("{call} #{attempt} is to be a dead letter:{}", failed(Some(failure)))
        }
        Output::Event(event) => {
            let text = format!("{event:?}");
            format!("event: {}", text.chars().take_while(|c| c.is_alphanumeric()).collect::<String>())
        }
        Output::Published { .. } => "node -> scanner  published".to_owned(),
        Output::Perform { call, attempt, function, .. } => {
            format!("node -> outside  {} for {call} #{}", function.name(), attempt.0)
        }
        Output::Desist { call, .. } => format!("node -> outside  desist, {call}"),
        Output::Dial { address, .. } => format!("node dials {address}"),
        Output::PeerSend { link, message, .. } => format!("node -> link {}  {}", link.0, to_peer(message)),
        Output::PeerClose { link } => format!("node closes link {}", link.0),
        Output::Roster(entries) => format!("node keeps {} keys", entries.len()),
        Output::GridStore(store) => format!("node keeps in mind that the store is {}", store.short()),
        Output::Catalogue(modules) => format!(
            "node keeps in mind modules of others: {}",
            modules.iter().map(|m| format!("{} {}", m.name, m.version)).collect::<Vec<_>>().join(", ")
        ),
        Output::Deployments(all) => format!("node keeps {} deployments", all.len()),
        Output::Assigned(items) => format!("node is assigned {} bundles", items.len()),
        Output::Authorities => "node keeps where it begins".to_owned(),
        Output::Ready => "node is ready".to_owned(),
        Output::Drained => "node is drained".to_owned(),
    }
}

fn standing(seen: &Seen) -> String {
    match seen {
        Seen::Nothing => "nothing".to_owned(),
        Seen::Live { record, running, .. } => {
            format!("live, {} attempts, running: {running}", record.attempts)
        }
        Seen::Ended(ended) => format!("{:?} {:?}", ended.status(), ended.result),
    }
}

fn to_worker(message: &ToWorker, payload: &Bytes) -> String {
    match message {
        ToWorker::Invoke(i) => {
            let again = if i.redelivered { ", again" } else { "" };
            let argument = crate::stage::parse(payload).unwrap_or_default();
            format!("invoke {} #{} {}({argument}){again}", id(&i.call), i.attempt, i.function)
        }
        ToWorker::Reply(r) => format!("reply {}{}", r.request, failed(r.failure.as_ref())),
        ToWorker::Value(v) => format!("value {}{} {payload:?}", v.request, failed(v.failure.as_ref())),
        ToWorker::Cancel(c) => format!("cancel {} #{}, interrupt: {}", id(&c.call), c.attempt, c.interrupt),
        other => first_word(other),
    }
}

/// What a node says to another.
pub(crate) fn to_peer(message: &Frame) -> String {
    match message {
        Frame::Run(run) => {
            let invoke = run.invoke.as_ref();
            let call =
                invoke.map_or_else(String::new, |i| format!("{} #{} {}", id(&i.call), i.attempt, i.function));
            format!("run {call}")
        }
        Frame::FromRunner(said) => match &said.message {
            Some(peer::from_runner::Message::Said(said)) => {
                format!("the runner says {}", said.message.as_ref().map_or_else(String::new, first_word))
            }
            Some(peer::from_runner::Message::Ended(ended)) => {
                format!("the runner has ended, begun: {}{}", ended.begun, failed(ended.failure.as_ref()))
            }
            None => "the runner says nothing".to_owned(),
        },
        Frame::Forward(forward) => {
            format!(
                "forward {} {}",
                forward.request,
                forward.what.as_ref().map_or_else(String::new, first_word)
            )
        }
        Frame::Forwarded(forwarded) => match &forwarded.how {
            Some(peer::forwarded::How::Reply(reply)) => {
                format!("forwarded {}: reply{}", forwarded.request, failed(reply.failure.as_ref()))
            }
            how => format!(
                "forwarded {}: {}",
                forwarded.request,
                how.as_ref().map_or_else(String::new, first_word)
            ),
        },
        other => first_word(other),
    }
}

/// What a worker says.
pub(crate) fn said(peer: PeerId, message: &ToNode) -> String {
    let what = match message {
        ToNode::Result(r) => format!("result {} #{}{}", id(&r.call), r.attempt, failed(r.failure.as_ref())),
        ToNode::Call(c) => format!("call {} of {} by {}", c.request, c.function, id(&c.parent)),
        ToNode::Read(r) => format!("read {} {}", r.request, r.key.as_ref().map_or("", |key| &key.name)),
        other => first_word(other),
    };
    format!("worker {} -> node  {what}", peer.0)
}

/// What comes from the keeper.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Exited { process, exit } => format!("keeper -> node  {} {exit}", process.0),
        Input::Loaded { template, .. } => format!("keeper -> node  {} has loaded", template.0),
        other => first_word(other),
    }
}

fn first_word(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take_while(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}

fn id(bytes: &[u8]) -> String {
    CallId::from_wire(bytes).map_or_else(|| "-".to_owned(), |call| call.to_string())
}

fn failed(failure: Option<&v1::Failure>) -> String {
    failure.map_or_else(String::new, |f| format!(" {}: {}", f.code, f.message))
}
