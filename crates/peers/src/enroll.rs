//! Joining with a ticket: this node's key is put on the grid's list by a node that is on it.
//!
//! ```text
//! this -> node of the grid, with the ticket's key:  enroll       node -> this: enrolled, or refused
//! ```

use std::path::Path;
use std::time::Duration;

use bourse_market::roster::Entry;
use bourse_market::store::GridStore;
use bourse_market::{Contact, codec};
use bourse_transport::{Bounds, Event, KeyPair, Transport as _};
use bourse_wire::header;
use bourse_wire::peer::v1::to_peer::Message;
use bourse_wire::peer::v1::{self as peer, ToPeer};
use bytes::Bytes;
use tokio::time::timeout;

use super::dialed::{Dial, Reached, reach};
use super::packing::{self, Parts};
use super::ticket::Ticket;
use super::{HEADER_BYTES_MAX, HEARTBEAT_MS, grid_store, members, read, seeds};

/// How long a node may take to answer once it was reached.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What came of it.
pub struct Joined {
    /// Who has let this node in.
    pub at: String,
    /// Where it begins.
    pub contacts: Vec<Contact>,
}

/// What a node that has let this one in says.
#[derive(Clone, Debug)]
pub struct LetIn {
    /// The address at which it was asked.
    pub at: String,
    /// Entries of the grid's list of keys.
    pub entries: Vec<Entry>,
    /// Where to begin.
    pub contacts: Vec<Contact>,
    /// Which store is the grid's, if that is known.
    pub store: Option<GridStore>,
}

impl LetIn {
    /// Keeps what this node has to know from now on.
    pub fn keep(&self, data: &Path) -> anyhow::Result<()> {
        let mut kept = members::load(data)?;
        kept.retain(|kept| self.entries.iter().all(|entry| entry.key != kept.key));
        kept.extend(self.entries.iter().cloned());
        members::save(data, kept.iter())?;
        if let Some(store) = &self.store {
            grid_store::save(data, store)?;
        }
        seeds::save(data, self.contacts.iter().filter(|c| !c.address.is_empty()).cloned())
    }
}

/// Has this node let in, and keeps what it has to know from then on.
pub async fn enroll(data: &Path, own: &KeyPair, name: &str, ticket: &Ticket) -> anyhow::Result<Joined> {
    let let_in = ask_for_it(own, name, ticket).await?;
    let_in.keep(data)?;
    Ok(Joined { at: let_in.at, contacts: let_in.contacts })
}

/// Has this node let in. Asks one node of the ticket after the other.
pub async fn ask_for_it(own: &KeyPair, name: &str, ticket: &Ticket) -> anyhow::Result<LetIn> {
    let mut troubles = Vec::new();
    for seed in &ticket.seeds {
        let dial = Dial {
            link: 1,
            node: seed.key,
            own: ticket.keys.clone(),
            // It is asked once: nothing is gained by a nearer way.
            nearby: None,
            address: seed.address.clone(),
            bounds: Bounds::new(packing::LENGTH_BYTES + HEADER_BYTES_MAX),
            heartbeat_ms: HEARTBEAT_MS,
        };
        match ask(&dial, own, name).await {
            Ok(let_in) => return Ok(let_in),
            Err(why) => troubles.push(format!("{}: {why}", seed.address)),
        }
    }
    let hint = match ticket.expired() {
        Some(ago) => format!(
            "the ticket has expired {} s ago, by this machine's clock: have another one made by bourse ticket, on any node of the grid",
            ago.as_secs()
        ),
        None => "a node of the ticket has to run, and to be reached from here; if it does not admit the key, the ticket was revoked"
            .to_owned(),
    };
    anyhow::bail!("no node of the grid has let this one in\n  {}\n  hint: {hint}", troubles.join("\n  "))
}

async fn ask(dial: &Dial, own: &KeyPair, name: &str) -> Result<LetIn, String> {
    let Reached { mut dealer, found: mut events, .. } = reach(dial).await?;
    let enroll = peer::Enroll { key: own.public().0.to_vec().into(), name: name.to_owned() };
    let header = header::encode(&ToPeer { message: Some(Message::Enroll(enroll)), more: Vec::new() });
    let line = dealer.line().ok_or("the connection was lost at once")?;
    let sent = match packing::pack(header, Bytes::new()) {
        Parts::One(part) => line.send_part(part),
        Parts::Two(header, payload) => line.send(header, payload),
    };
    sent.map_err(|_| "the connection was lost at once")?;
    loop {
        for event in events.drain(..) {
            match event {
                Event::Frame { header, payload, .. } => {
                    if let Some(answer) = answer(&dial.address, header, payload)? {
                        dealer.shut_down().await;
                        return Ok(answer);
                    }
                }
                Event::Closed { .. } => {
                    return Err("it has closed the connection without an answer".to_owned());
                }
                Event::Opened { .. } | Event::Broken { .. } => {}
            }
        }
        timeout(ANSWER_MAX, dealer.recv(&mut events)).await.map_err(|_| "it gives no answer")?;
    }
}

/// The answer, if it is one.
fn answer(at: &str, first: Bytes, second: Bytes) -> Result<Option<LetIn>, String> {
    let (header, _) = read(first, second)?;
    match header::decode::<ToPeer>(header).map_err(|e| e.to_string())?.message {
        Some(Message::Enrolled(enrolled)) => {
            let entries = codec::entries(enrolled.entries).map_err(|e| e.to_string())?;
            let contacts = enrolled.contacts.into_iter().map(|contact| codec::contact(Some(contact)));
            let contacts = contacts.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
            let store = enrolled.store.map(codec::store).transpose().map_err(|e| e.to_string())?;
            Ok(Some(LetIn { at: at.to_owned(), entries, contacts, store }))
        }
        Some(Message::Refused(refused)) => {
            let failure = refused.failure.unwrap_or_default();
            let hint = if failure.hint.is_empty() { String::new() } else { format!(" ({})", failure.hint) };
            Err(format!("{}{hint}", failure.message))
        }
        // It says hello to everybody.
        _ => Ok(None),
    }
}
