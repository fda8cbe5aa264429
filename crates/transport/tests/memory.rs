//! The transport inside one process keeps the same promises.

use bourse_transport::memory::{Port, pair};
use bourse_transport::{Bounds, Connection, Event, SendError, Transport};
use bytes::Bytes;

fn bounds() -> Bounds {
    let mut bounds = Bounds::new(100);
    bounds.send_frames_max = 3;
    bounds.connections_max = 2;
    bounds
}

/// All that a port has to say now, one word each.
fn told(port: &mut Port) -> Vec<String> {
    let mut events = Vec::new();
    port.try_recv(&mut events);
    let line = |event| match event {
        Event::Opened { connection, .. } => format!("opened {}", connection.0),
        Event::Frame { connection, header, payload } => {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            format!("frame {} {}/{}", connection.0, text(&header), text(&payload))
        }
        Event::Broken { connection, reason } => format!("broken {} {reason}", connection.0),
        Event::Closed { connection } => format!("closed {}", connection.0),
    };
    events.into_iter().map(line).collect()
}

fn send(port: &mut Port, to: Connection, header: &'static str) -> Result<(), SendError> {
    port.send(to, header.into(), Bytes::new())
}

#[test]
fn a_conversation() {
    let ((mut left, here), (mut right, there)) = pair(&bounds());
    send(&mut left, here, "at once").unwrap();
    assert_eq!(told(&mut right), ["opened 1", "frame 1 at once/"]);
    right.send(there, "h".into(), "p".into()).unwrap();
    assert_eq!(told(&mut left), ["opened 1", "frame 1 h/p"]);
    // The last words come before the end, and nothing after it.
    send(&mut left, here, "last").unwrap();
    left.close(here);
    send(&mut right, there, "unheard").unwrap();
    assert_eq!(told(&mut left), ["closed 1"]);
    assert_eq!(told(&mut right), ["frame 1 last/", "closed 1"]);
    assert_eq!(send(&mut right, there, "x"), Err(SendError::Gone));
    assert_eq!(send(&mut left, here, "x"), Err(SendError::Gone));
}

#[test]
fn a_full_queue_refuses_until_it_is_read() {
    let ((mut left, here), (mut right, _)) = pair(&bounds());
    for _ in 0..3 {
        send(&mut left, here, "x").unwrap();
    }
    assert_eq!(send(&mut left, here, "x"), Err(SendError::Full));
    assert_eq!(told(&mut right).len(), 4);
    send(&mut left, here, "x").unwrap();
}

#[test]
fn a_frame_beyond_the_bound_ends_the_connection() {
    let ((mut left, here), (mut right, _)) = pair(&bounds());
    left.send(here, Bytes::from(vec![0; 60]), Bytes::from(vec![0; 41])).unwrap();
    assert_eq!(
        told(&mut right),
        ["opened 1", "broken 1 message too large: 101 bytes exceeds max 100", "closed 1"]
    );
    assert_eq!(told(&mut left), ["opened 1", "closed 1"]);
}

#[test]
fn more_connections_than_the_bound_are_closed() {
    let mut hub = Port::new(bounds());
    let mut ports: Vec<Port> = (0..3).map(|_| Port::new(bounds())).collect();
    for port in &mut ports {
        port.connect(&hub.address()).unwrap();
    }
    assert_eq!(told(&mut hub), ["opened 1", "opened 2"]);
    assert_eq!(told(&mut ports[2]), ["opened 1", "closed 1"]);
    assert_eq!(hub.connections(), 2);
}

#[test]
fn a_port_that_is_dropped_closes_all_even_what_it_had_not_seen() {
    let mut hub = Port::new(bounds());
    let (mut seen, mut unseen) = (Port::new(bounds()), Port::new(bounds()));
    let address = hub.address();
    seen.connect(&address).unwrap();
    told(&mut hub);
    unseen.connect(&address).unwrap();
    drop(hub);
    assert_eq!(told(&mut seen), ["opened 1", "closed 1"]);
    assert_eq!(told(&mut unseen), ["opened 1", "closed 1"]);
    assert_eq!(seen.connect(&address), Err(SendError::Gone));
}

#[tokio::test]
async fn ports_on_two_threads_wake_each_other() {
    let ((mut left, here), (mut right, there)) = pair(&Bounds::new(100));
    let echo = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut events = Vec::new();
            loop {
                right.recv(&mut events).await;
                for event in events.drain(..) {
                    match event {
                        Event::Frame { header, payload, .. } => right.send(there, header, payload).unwrap(),
                        Event::Closed { .. } => return,
                        _ => {}
                    }
                }
            }
        });
    });
    let (mut events, mut back) = (Vec::new(), 0);
    for number in 0..1000 {
        left.send(here, number.to_string().into(), Bytes::new()).unwrap();
        while back <= number {
            left.recv(&mut events).await;
            for event in events.drain(..) {
                if let Event::Frame { header, .. } = event {
                    assert_eq!(header, back.to_string());
                    back += 1;
                }
            }
        }
    }
    left.close(here);
    echo.join().unwrap();
}
