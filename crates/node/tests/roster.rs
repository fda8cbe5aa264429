//! How a key comes onto the grid's list, and what a ticket is not good for.

mod common;

use bourse_node::market::NodeId;
use bourse_node::market::roster::Standing;
use bourse_node::{Input, LinkId, Node, Output, RosterChange};
use bourse_wire::id::Incarnation;
use bourse_wire::peer::v1 as peer;
use bourse_wire::time::{Mono, Now, Wall};
use bytes::Bytes;
use common::grid::{grid_config, key};
use peer::to_peer::Message as Frame;

/// The node that is asked, what it has said last, and the keys of who asks.
struct Door {
    node: Node,
    now: Now,
    links: u64,
}

const TICKET: [u8; 32] = [50; 32];
const COMES: [u8; 32] = [60; 32];

impl Door {
    fn new() -> Self {
        let node = Node::new(grid_config(0, 1), Incarnation(1), [1; 32]);
        let now = Now { mono: Mono(1), wall: Wall(1_000_000) };
        Self { node, now, links: 0 }
    }

    fn change(&mut self, change: RosterChange) {
        self.node.change_roster(self.now, change).expect("it is done");
    }

    fn invite(&mut self) {
        let until = self.now.wall.0 + 60_000;
        self.change(RosterChange::Invite { key: TICKET, until, name: "t".into() });
    }

    /// What is said to who opens a link with a key and says this, and whether the link is closed then.
    fn says(&mut self, of: [u8; 32], frame: Frame) -> (Vec<Frame>, bool) {
        while self.node.poll().is_some() {}
        self.links += 1;
        let link = LinkId(self.links);
        self.node.handle(self.now, Input::PeerOpened { link, key: of });
        self.node.handle(self.now, Input::PeerFrame { link, message: Some(frame), payload: Bytes::new() });
        let (mut said, mut closed) = (Vec::new(), false);
        while let Some(output) = self.node.poll() {
            match output {
                Output::PeerSend { link: at, message, .. } if at == link => said.push(message),
                Output::PeerClose { link: at } if at == link => closed = true,
                _ => {}
            }
        }
        (said, closed)
    }

    fn enroll(&mut self, of: [u8; 32], wanted: [u8; 32]) -> Result<peer::Enrolled, String> {
        let enroll = peer::Enroll { key: wanted.to_vec().into(), name: "birch".into() };
        let (mut said, closed) = self.says(of, Frame::Enroll(enroll));
        assert!(closed, "whatever it comes to, the link has done what it was for");
        match said.pop() {
            Some(Frame::Enrolled(enrolled)) => Ok(enrolled),
            Some(Frame::Refused(refused)) => Err(refused.failure.expect("it says why").message),
            other => panic!("{other:?}"),
        }
    }

    fn standing(&self, of: [u8; 32]) -> Option<Standing> {
        self.node.roster().find(|entry| entry.key == NodeId(of)).map(|entry| entry.standing)
    }
}

#[test]
fn a_ticket_lets_a_key_in_until_its_time_is_over() {
    let mut door = Door::new();
    door.invite();
    assert_eq!(door.standing(key(0)), Some(Standing::Member), "who begins the list is on it");
    let enrolled = door.enroll(TICKET, COMES).unwrap();
    assert_eq!(door.standing(COMES), Some(Standing::Member));
    let told: Vec<&[u8]> = enrolled.entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(told, [&key(0)[..], &COMES[..]], "it hears of the node that it can begin with, and of itself");
    assert_eq!(enrolled.contacts.len(), 1);
    // Once more is no harm; when its time is over it is one.
    door.enroll(TICKET, COMES).unwrap();
    door.now.wall.0 += 60_000;
    let refused = door.enroll(TICKET, [61; 32]).unwrap_err();
    assert!(refused.contains("has expired 0 s ago"), "{refused}");
    assert_eq!(door.standing([61; 32]), None);
}

#[test]
fn a_ticket_is_good_for_nothing_else() {
    let mut door = Door::new();
    door.invite();
    // 1. It is no node.
    let contact = peer::Contact { id: TICKET.to_vec().into(), incarnation: 5, ..Default::default() };
    let hello = peer::Hello { version_min: 1, version_max: 1, contact: Some(contact), ..Default::default() };
    let (said, closed) = door.says(TICKET, Frame::Hello(hello));
    assert!(closed && said.iter().any(|frame| matches!(frame, Frame::Refused(_))), "{said:?}");
    // 2. It does not change the list in another way.
    let entry = peer::Entry { key: COMES.to_vec().into(), revision: 1, standing: 1, ..Default::default() };
    let roster = peer::Roster { digest: 1, asks: false, entries: vec![entry] };
    assert!(door.says(TICKET, Frame::Roster(roster)).1);
    assert_eq!(door.standing(COMES), None);
    // 3. It does not bring back who was revoked, nor make a ticket of a node.
    door.change(RosterChange::Admit { key: COMES, name: String::new() });
    door.change(RosterChange::Revoke { key: COMES });
    assert!(door.enroll(TICKET, COMES).unwrap_err().contains("has been revoked"));
    assert!(door.enroll(TICKET, TICKET).unwrap_err().contains("the key of a ticket"));
    // 4. What is none lets nobody in: a node's key, a revoked ticket, a key that is too short.
    assert!(door.enroll(key(0), [61; 32]).unwrap_err().contains("no ticket"));
    let short = peer::Enroll { key: vec![1; 31].into(), name: String::new() };
    assert!(door.says(TICKET, Frame::Enroll(short)).1);
    door.change(RosterChange::Revoke { key: TICKET });
    assert!(door.enroll(TICKET, [61; 32]).unwrap_err().contains("no ticket"));
    assert_eq!(door.node.roster().count(), 3);
}
