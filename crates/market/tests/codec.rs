//! The market's messages over the wire and back, and what a peer may not say.

#![expect(clippy::unwrap_used, reason = "what is written here is right")]

use bourse_market::codec::{Error, decode, encode, encoded_len};
use bourse_market::message::{Claim, Grant, Grid, Join, Match, Mesh, Order, Orders, Terms};
use bourse_market::times::{CONTACTS_MAX, QUANTITY_MAX};
use bourse_market::{Contact, Lot, Message, NodeId};
use bourse_wire::header;
use bourse_wire::id::Incarnation;
use bourse_wire::peer::v1 as wire;
use bourse_wire::peer::v1::to_peer::Message as Frame;

fn contact(n: u8) -> Contact {
    Contact {
        id: NodeId([n; 32]),
        incarnation: Incarnation(u64::MAX - u64::from(n)),
        address: format!("node{n}.example:7071"),
        domain: "rack 1".into(),
    }
}

fn lot() -> Lot {
    Lot { module: "shop".into(), version: "1.2.3-rc.1+build".parse().unwrap() }
}

fn messages() -> Vec<Message> {
    let order =
        |terms, quantity| Order { module: "shop".into(), terms, revision: 7, quantity, in_line: false };
    vec![
        Message::Beat,
        Message::Join(Join { contact: contact(1), may_serve: true, first: true, view: u64::MAX, roster: 7 }),
        Message::Grid(Grid { authorities: vec![contact(1), contact(2)], others: vec![contact(3)], nodes: 9 }),
        Message::Appoint,
        Message::Mesh(Mesh {
            contact: contact(1),
            view: 1,
            nodes: 2,
            authorities: vec![contact(4)],
            roster: 8,
        }),
        Message::Resign(Incarnation(5)),
        Message::Orders(Orders {
            contact: contact(1),
            all: true,
            orders: vec![
                order(Terms::Sell("2.0.0".parse().unwrap()), 0),
                order(Terms::Buy(">=1, <3".parse().unwrap()), QUANTITY_MAX),
            ],
        }),
        Message::Matches(vec![Match {
            requirement: "*".parse().unwrap(),
            revision: 1,
            lot: lot(),
            seller: contact(2),
            offered: 3,
            quantity: 4,
            in_line: true,
        }]),
        Message::Claim(Claim {
            lot: lot(),
            epoch: 1,
            revision: 2,
            want: 3,
            known: 4,
            next: 5,
            open: vec![1, 3, 4],
            closed: true,
        }),
        Message::Grant(Grant {
            lot: lot(),
            epoch: 1,
            seen: 2,
            granted: u64::MAX,
            revoked: 4,
            void: vec![2],
            closed: true,
        }),
    ]
}

#[test]
fn what_is_said_is_what_is_heard() {
    for message in messages() {
        let bytes = header::encode(&wire::ToPeer { message: Some(encode(&message)), more: Vec::new() });
        assert_eq!(bytes.len(), encoded_len(&message), "{message:?}");
        let frame: wire::ToPeer = header::decode(bytes).unwrap();
        assert_eq!(decode(frame.message.unwrap()), Ok(Ok(message)));
    }
}

#[test]
fn what_is_the_nodes_comes_back() {
    let frame = Frame::Run(wire::Run::default());
    assert_eq!(decode(frame.clone()), Ok(Err(frame)));
}

/// A valid frame, after something was done to it.
fn spoilt(which: fn(&Frame) -> bool, spoil: impl Fn(&mut Frame)) -> Result<Result<Message, Frame>, Error> {
    let mut frame = messages().iter().map(encode).find(which).unwrap();
    spoil(&mut frame);
    decode(frame)
}

#[test]
fn what_a_peer_may_not_say() {
    let orders = |spoil: fn(&mut wire::Orders)| {
        let spoil = move |frame: &mut Frame| {
            let Frame::Orders(orders) = frame else { unreachable!() };
            spoil(orders);
        };
        spoilt(|frame| matches!(frame, Frame::Orders(_)), spoil)
    };
    let said = |result: Result<Result<Message, Frame>, Error>| result.unwrap_err().to_string();
    assert_eq!(said(orders(|o| o.contact = None)), "the contact is missing");
    assert_eq!(
        said(orders(|o| o.contact.as_mut().unwrap().id = vec![1; 31].into())),
        "a node's id has 32 bytes, not 31"
    );
    assert!(
        said(orders(|o| o.contact.as_mut().unwrap().address = "x".repeat(256)))
            .contains("an address has 256 bytes")
    );
    assert_eq!(said(orders(|o| o.orders[0].module = String::new())), "the module's name is missing");
    assert!(said(orders(|o| o.orders[0].module = "m".repeat(300))).contains("a module's name has 300 bytes"));
    assert!(said(orders(|o| o.orders[0].terms = None)).contains("is missing"));
    assert!(
        said(orders(|o| o.orders[0].terms = Some(wire::order::Terms::Sell("one".into()))))
            .contains("\"one\" is not a version")
    );
    assert!(
        said(orders(|o| o.orders[1].terms = Some(wire::order::Terms::Buy("^^1".into()))))
            .contains("\"^^1\" is not a version")
    );
    assert!(
        said(orders(|o| o.orders = vec![o.orders[0].clone(); 10_001]))
            .contains("10001 orders, at most 10000")
    );
    let grid = spoilt(
        |frame| matches!(frame, Frame::Grid(_)),
        |frame| {
            let Frame::Grid(grid) = frame else { unreachable!() };
            grid.authorities = vec![grid.authorities[0].clone(); CONTACTS_MAX + 1];
        },
    );
    assert!(said(grid).contains("contacts, at most"));
    // What is absurd is taken for the most that there can be.
    let Ok(Ok(Message::Orders(absurd))) = orders(|o| o.orders[0].quantity = u32::MAX) else { panic!() };
    assert_eq!(absurd.orders[0].quantity, QUANTITY_MAX);
}
