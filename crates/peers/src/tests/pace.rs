//! How quick a frame is there.

use super::*;

/// Nagle's algorithm would hold the second of two small frames back until the first is acknowledged, 40 ms later.
#[tokio::test]
async fn small_frames_are_not_held_back() {
    let (mut first, there, mut second, here) = pair().await;
    let start = Instant::now();
    for _ in 0..20 {
        first.send(there, "one", "");
        tokio::time::sleep(Duration::from_millis(1)).await;
        first.send(there, "two", "");
        for _ in 0..2 {
            second.frame(here).await;
        }
        second.send(here, "one", "");
        tokio::time::sleep(Duration::from_millis(1)).await;
        second.send(here, "two", "");
        for _ in 0..2 {
            first.frame(there).await;
        }
    }
    assert!(start.elapsed() < Duration::from_millis(20 * 40), "{:?}", start.elapsed());
}

/// What a round trip costs beside one over a bare socket. Prints; `--release` for numbers that mean something.
#[tokio::test]
async fn a_round_trip_beside_one_of_bare_tcp() {
    let rounds = if cfg!(debug_assertions) { 500 } else { 20_000 };
    let body = [5; 200];
    let (mut first, there, mut second, here) = pair().await;
    let echo = tokio::spawn(async move {
        let mut events = Vec::new();
        loop {
            second.peers.recv(&mut events).await;
            for event in events.drain(..) {
                let PeerEvent::Frame { header, payload, .. } = event else { return };
                second.peers.send(here, header, payload).unwrap();
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut bare = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    bare.set_nodelay(true).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut bytes = [0; 200];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.unwrap();
        }
    });
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut events = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        first
            .peers
            .send(there, Bytes::copy_from_slice(&body[..100]), Bytes::copy_from_slice(&body[100..]))
            .unwrap();
        while events.is_empty() {
            first.peers.recv(&mut events).await;
        }
        events.clear();
        ours.push(start.elapsed());
        let start = Instant::now();
        bare.write_all(&body).await.unwrap();
        let mut bytes = [0; 200];
        bare.read_exact(&mut bytes).await.unwrap();
        theirs.push(start.elapsed());
    }
    echo.abort();
    ours.sort_unstable();
    theirs.sort_unstable();
    let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100];
    println!(
        "200 bytes there and back, {rounds} times: peers {:?} median, {:?} p99; bare tcp {:?} median, {:?} p99",
        at(&ours, 50),
        at(&ours, 99),
        at(&theirs, 50),
        at(&theirs, 99),
    );
}
