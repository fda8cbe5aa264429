//! What is counted of the grid: messages between nodes, and how the market stands.

use std::collections::BTreeMap;

use bourse_node::Node;
use bourse_peers::Peers;
use bourse_transport::Carrier;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use metrics::{counter, gauge};

/// A message that came or went, with its bytes.
pub(super) fn count(direction: &'static str, name: &'static str, bytes: usize) {
    counter!("bourse_peer_messages_total", "message" => name, "direction" => direction).increment(1);
    counter!("bourse_peer_bytes_total", "message" => name, "direction" => direction).increment(bytes as u64);
}

/// How the market stands.
pub(super) fn look(node: &Node, peers: Option<&Peers>) {
    let market = node.market();
    let (slots, free, own) = market.slots();
    let sold = market.sold();
    let running: u32 = sold.iter().map(|channel| channel.running).sum();
    for (state, count) in [("free", free), ("own", own), ("sold", running)] {
        gauge!("bourse_slots", "state" => state).set(count);
    }
    gauge!("bourse_slots_max").set(slots);
    gauge!("bourse_linked_nodes").set(node.linked().count() as f64);
    let carriers: Vec<Carrier> = peers.map(Peers::carriers).unwrap_or_default().into_values().collect();
    for carrier in [Carrier::Ipc, Carrier::Tcp] {
        let nodes = carriers.iter().filter(|by| **by == carrier).count();
        gauge!("bourse_connected_nodes", "by" => carrier.to_string()).set(nodes as f64);
    }
    let mut bought: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for channel in market.bought() {
        let of = bought.entry(channel.lot.module.clone()).or_default();
        *of = (of.0 + channel.tokens, of.1 + channel.running);
    }
    for (module, (tokens, running)) in bought {
        gauge!("bourse_tokens", "module" => module.clone()).set(tokens);
        gauge!("bourse_bought_running", "module" => module).set(running);
    }
    gauge!("bourse_orders").set(market.orders().len() as f64);
}

/// What a message is called.
pub(super) fn name(message: &Frame) -> &'static str {
    match message {
        Frame::Hello(_) => "hello",
        Frame::Refused(_) => "refused",
        Frame::Beat(_) => "beat",
        Frame::Join(_) => "join",
        Frame::Grid(_) => "grid",
        Frame::Appoint(_) => "appoint",
        Frame::Mesh(_) => "mesh",
        Frame::Resign(_) => "resign",
        Frame::Orders(_) => "orders",
        Frame::Matches(_) => "matches",
        Frame::Claim(_) => "claim",
        Frame::Grant(_) => "grant",
        Frame::Run(_) => "run",
        Frame::ToRunner(_) => "to_runner",
        Frame::FromRunner(_) => "from_runner",
        Frame::Roster(_) => "roster",
        Frame::Enroll(_) => "enroll",
        Frame::Enrolled(_) => "enrolled",
        Frame::Store(_) => "store",
        Frame::Forward(_) => "forward",
        Frame::Forwarded(_) => "forwarded",
        Frame::Look(_) => "look",
        Frame::Looked(_) => "looked",
        Frame::Reach(_) => "reach",
        Frame::Reached(_) => "reached",
        Frame::Modules(_) => "modules",
        Frame::Stock(_) => "stock",
        Frame::Assign(_) => "assign",
        Frame::Fetch(_) => "fetch",
        Frame::Bundle(_) => "bundle",
        Frame::Deploy(_) => "deploy",
        Frame::Deployed(_) => "deployed",
    }
}
