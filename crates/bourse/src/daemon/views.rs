//! What the admin interface shows, as JSON; and answers on their way to the gateway.

use bourse_gateway::Standing as CallStanding;
use bourse_gateway::standing::at;
use bourse_node::durable::work::Seen;
use bourse_node::market::Lot;
use bourse_node::market::market::{ChannelView, NodeView, OrderView};
use bourse_node::market::message::Terms;
use bourse_node::market::roster::Standing;
use bourse_node::{Answer, Deployment, Node, PlacedView, Stage, TriggerView};
use bourse_peers::Peers;
use bourse_store::StoreId;
use bourse_transport::Key;
use bourse_wire::options::MailPattern;
use bourse_wire::time::Now;
use bourse_wire::v1;
use serde_json::{Value, json};

use super::deployments::hex;
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
                "elsewhere": m.elsewhere,
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

/// `GET /v1/nodes`
pub(super) fn nodes(node: &Node, peers: Option<&Peers>, now: Now) -> Value {
    let me = node.grid_key();
    let carriers = peers.map(Peers::carriers).unwrap_or_default();
    let keeper = node.grid_store().map(|store| store.node.id);
    let one = |n: NodeView| {
        json!({
            "key": n.contact.id.to_string(),
            "address": n.contact.address,
            "domain": n.contact.domain,
            "authority": n.authority,
            "store": keeper == Some(n.contact.id),
            "this": me.is_some_and(|me| me == n.contact.id.0),
            "by": carriers.get(&n.contact.id.0).map(ToString::to_string),
            "heard_ms_ago": n.heard.map(|heard| u64::try_from(heard.as_millis()).unwrap_or(u64::MAX)),
        })
    };
    match me {
        Some(_) => node.market().nodes(now.mono).into_iter().map(one).collect(),
        None => json!([]),
    }
}

/// `GET /v1/market`
pub(super) fn market(node: &Node) -> Value {
    let market = node.market();
    let (slots, free, own) = market.slots();
    let order = |o: OrderView| {
        let (side, version) = match &o.terms {
            Terms::Sell(version) => ("sell", version.to_string()),
            Terms::Buy(requirement) => ("buy", requirement.to_string()),
        };
        json!({
            "module": o.module, "side": side, "version": version, "node": o.node.to_string(),
            "quantity": o.quantity, "open": o.open, "in_line": o.in_line,
        })
    };
    let channel = |c: ChannelView| {
        json!({
            "module": c.lot.module, "version": c.lot.version.to_string(), "node": c.node.to_string(),
            "tokens": c.tokens, "running": c.running,
        })
    };
    let offered = |(lot, most): (&Lot, u32)| json!({"module": lot.module, "version": lot.version.to_string(), "most": most});
    let short = |(module, requirement, waiting): (String, String, u32)| json!({"module": module, "version": requirement, "waiting": waiting});
    json!({
        "slots": slots, "free": free, "own": own,
        "authority": market.is_authority(),
        "offers": market.offered().map(offered).collect::<Vec<_>>(),
        "short": market.short().into_iter().map(short).collect::<Vec<_>>(),
        "sold": market.sold().into_iter().map(channel).collect::<Vec<_>>(),
        "bought": market.bought().into_iter().map(channel).collect::<Vec<_>>(),
        "orders": market.orders().into_iter().map(order).collect::<Vec<_>>(),
    })
}

/// `GET /v1/store`: which store is the grid's, and who keeps it; nothing is known of that by a node that waits to be linked.
pub(super) fn store(node: &Node) -> Value {
    match (node.grid_key(), node.grid_store()) {
        (None, _) => json!({"here": true}),
        (Some(_), None) => json!({"here": false}),
        (Some(me), Some(store)) => json!({
            "id": StoreId(store.id).to_string(), "term": store.term, "used": store.used, "here": store.node.id.0 == me,
            "node": store.node.id.to_string(), "address": store.node.address,
        }),
    }
}

/// `GET /v1/deployments`
pub(super) fn deployments(node: &Node) -> Value {
    let placed = |placed: PlacedView| {
        let (stage, failure) = match &placed.stage {
            Stage::Assigned => ("assigned", None),
            Stage::Fetching => ("fetching", None),
            Stage::Loading => ("loading", None),
            Stage::Serving => ("serving", None),
            Stage::Failed(why) => ("failed", Some(failure(why))),
        };
        json!({
            "node": placed.node.to_string(), "digest": hex(&placed.digest), "stage": stage, "failure": failure,
            "gone": placed.gone,
        })
    };
    let one = |(deployment, nodes): (Deployment, Vec<PlacedView>)| {
        json!({
            "name": deployment.name,
            "digest": hex(&deployment.digest),
            "previous": deployment.previous.map(|digest| hex(&digest)),
            "canary": deployment.canary.map(|canary| json!({"digest": hex(&canary.digest), "nodes": canary.nodes})),
            "count": deployment.count,
            "labels": deployment.labels,
            "nodes": nodes.into_iter().map(placed).collect::<Vec<_>>(),
        })
    };
    node.deployments().into_iter().map(one).collect()
}

/// `GET /v1/members`: the grid's list of keys.
pub(super) fn members(node: &Node) -> Value {
    let own = node.grid_key();
    let entry = |entry: &bourse_node::market::roster::Entry| {
        let (standing, until) = match entry.standing {
            Standing::Member => ("member", None),
            Standing::Ticket(until) => ("ticket", Some(until)),
            Standing::Revoked => ("revoked", None),
        };
        json!({
            "key": Key(entry.key.0).to_hex(), "name": entry.name, "standing": standing, "until_ms": until,
            "this": Some(entry.key.0) == own,
        })
    };
    node.roster().map(entry).collect()
}

/// How a durable call stands, for the gateway.
pub(super) fn standing(seen: Seen, now: Now) -> CallStanding {
    match seen {
        Seen::Nothing => CallStanding::Nothing,
        Seen::Live { record, running, due } => {
            CallStanding::Live { record, running, again_in: due.map(|due| due.since(now.mono)) }
        }
        Seen::Ended(ended) => CallStanding::Ended(ended),
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
