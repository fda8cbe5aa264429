//! What the admin interface shows, as JSON; and answers on their way to the gateway.

use bourse_gateway::Standing;
use bourse_gateway::standing::at;
use bourse_node::durable::work::Seen;
use bourse_node::{Answer, Node, TriggerView};
use bourse_wire::options::MailPattern;
use bourse_wire::time::Now;
use bourse_wire::v1;
use serde_json::{Value, json};

use super::files::Contact;

/// An answer of the node as the gateway's.
pub(super) fn answer(answer: Answer) -> bourse_gateway::Answer {
    bourse_gateway::Answer {
        call: answer.call,
        result: answer.result.map(|s| bourse_gateway::Success {
            payload: s.payload,
            content_type: s.content_type,
            http: s.http,
        }),
    }
}

/// `GET /v1/modules`
pub(super) fn modules(node: &Node) -> Value {
    node.modules()
        .map(|m| {
            let serving = m.serving.as_ref();
            let functions =
                serving.map(|(_, module)| module.functions.iter().map(function).collect::<Vec<_>>());
            json!({
                "name": m.name,
                "version": serving.map(|(_, module)| version(module)),
                "revision": serving.map(|(revision, _)| &revision.0),
                "attached": m.attached,
                "loading": m.loading,
                "failure": m.failure.as_ref().map(failure),
                "waiting": m.waiting,
                "instances": m.instances,
                "blocked": m.blocked,
                "functions": functions.unwrap_or_default(),
            })
        })
        .collect()
}

fn version(module: &v1::Module) -> &str {
    if module.version.is_empty() { "0.0.0" } else { &module.version }
}

fn function(f: &v1::Function) -> Value {
    let parameters: Vec<Value> = f
        .parameters
        .iter()
        .map(|p| json!({"name": p.name, "type": p.r#type, "required": p.required}))
        .collect();
    json!({"name": f.name, "http": f.http, "mail": mail(f), "doc": f.doc, "parameters": parameters, "returns": f.returns})
}

/// The recipients whose mail it takes.
fn mail(f: &v1::Function) -> Vec<String> {
    let patterns = f.options.get("mail").and_then(|json| MailPattern::from_json(json).ok());
    patterns.unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn failure(f: &v1::Failure) -> Value {
    json!({"code": f.code, "message": f.message, "hint": f.hint, "type": f.r#type, "traceback": f.traceback})
}

/// `GET /v1/instances`
pub(super) fn instances(node: &Node, now: Now) -> Value {
    node.instances(now)
        .map(|i| {
            let running = i
                .running
                .map(|(function, time)| json!({"function": function, "seconds": time.as_secs_f64()}));
            json!({
                "instance": i.process.0,
                "pid": i.pid,
                "module": i.module,
                "revision": i.revision.0,
                "phase": format!("{:?}", i.phase).to_lowercase(),
                "blocked": i.blocked,
                "running": running,
                "ahead": i.ahead,
                "age_seconds": i.age.as_secs_f64(),
            })
        })
        .collect()
}

/// `GET /v1/queues`: the durable calls that wait, by module; and the queues that it has.
pub(super) fn queues(node: &Node, now: Now) -> Value {
    let triggers = node.triggers(now);
    let names = |module: &str| {
        let of = |t: &&TriggerView| {
            t.kind == "queue" && t.function.rsplit_once('.').is_some_and(|(of, _)| of == module)
        };
        triggers.iter().filter(of).map(|t| t.name.as_str()).collect::<Vec<_>>()
    };
    node.lanes()
        .map(|l| {
            json!({
                "module": l.lane,
                "ready": l.ready,
                "retrying": l.later,
                "running": l.running,
                "more": l.more,
                "queues": names(l.lane),
            })
        })
        .collect()
}

/// `GET /v1/triggers`
pub(super) fn triggers(node: &Node, now: Now) -> Value {
    let trigger = |t: TriggerView| {
        let mut json = json!({"kind": t.kind, "name": t.name, "function": t.function, "serving": t.serving});
        if t.kind == "cron" {
            json["zone"] = t.zone.into();
            json["missed"] = t.missed.into();
            json["next"] = t.next_ms.and_then(at).into();
            json["last"] = t.last_ms.and_then(at).into();
        }
        json
    };
    node.triggers(now).into_iter().map(trigger).collect()
}

/// How a durable call stands, for the gateway.
pub(super) fn standing(seen: Seen, now: Now) -> Standing {
    match seen {
        Seen::Nothing => Standing::Nothing,
        Seen::Live { record, running, due } => {
            Standing::Live { record, running, again_in: due.map(|due| due.since(now.mono)) }
        }
        Seen::Ended(ended) => Standing::Ended(ended),
    }
}

/// `GET /v1/status`
pub(super) fn status(node: &Node, contact: &Contact, keeper: u32) -> Value {
    let status = node.status();
    json!({
        "version": contact.version,
        "pid": contact.pid,
        "keeper_pid": keeper,
        "folder": contact.folder,
        "http": contact.http,
        "smtp": contact.smtp,
        "endpoint": contact.endpoint,
        "running": status.running,
        "running_max": status.running_max,
        "waiting": status.waiting,
        "calls": status.calls,
        "draining": status.draining,
    })
}
