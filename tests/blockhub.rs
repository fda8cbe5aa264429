//! The example: many throw blobs in, blocks come out, and every blob is in exactly one, whatever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value as Json;

use crate::support::{Client, Daemon, Script, Setup, until, wait_for};

const VISITORS: usize = 8;
const CHAINS: usize = 3;

/// How many blobs there are.
fn blobs() -> usize {
    if std::env::var_os("BOURSE_TEST_LONG").is_some() { 5_000 } else { 600 }
}

/// Smaller blocks than in the example, and impatient ones.
fn blockhub() -> Setup {
    let source = include_str!("../examples/blockhub/blockhub.py");
    assert!(source.contains("BLOCK = 100") && source.contains("OPEN = \"5s\""));
    let source = source.replace("BLOCK = 100", "BLOCK = 20").replace("OPEN = \"5s\"", "OPEN = \"300ms\"");
    Setup::new(&[("blockhub.py", &source)])
}

fn chain(blob: usize) -> String {
    format!("chain {}", blob % CHAINS)
}

/// Throws in a blob. Its hash, if it was taken.
fn throw(client: Client, blob: usize) -> Option<String> {
    let path = format!("/chains/{}", chain(blob).replace(' ', "%20"));
    let headers = [("content-type", "application/octet-stream")];
    let answer = client.try_send("POST", &path, &headers, format!("blob {blob}").as_bytes()).ok()?;
    assert!(matches!(answer.status, 202 | 503), "{answer}");
    (answer.status == 202).then(|| answer.json()["blob"].as_str().expect("a hash").to_owned())
}

/// Throws in blobs from many threads until all are in or the daemon is gone: the hashes of those that were taken.
fn throw_all(client: Client, next: &AtomicUsize) -> BTreeMap<usize, String> {
    let visit = || {
        let mut taken = Vec::new();
        loop {
            let blob = next.fetch_add(1, Ordering::Relaxed);
            match (blob < blobs()).then(|| throw(client, blob)).flatten() {
                Some(hash) => taken.push((blob, hash)),
                None => return taken,
            }
        }
    };
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..VISITORS).map(|_| scope.spawn(visit)).collect();
        visitors.into_iter().flat_map(|v| v.join().expect("a visitor leaves")).collect()
    })
}

/// The blobs in the blocks of a chain; each block is on top of the one before it.
fn blocks(daemon: &Daemon, chain: &str) -> Vec<String> {
    let path = format!("/chains/{}", chain.replace(' ', "%20"));
    let head = daemon.get(&path).ok();
    let height = head["height"].as_u64().expect("a height");
    let mut all = Vec::new();
    let mut last = Json::from("");
    for at in 1..=height {
        let mut block = daemon.get(&format!("{path}/blocks/{at}")).ok();
        assert_eq!((&block["height"], &block["previous"]), (&Json::from(at), &last), "{block}");
        last = block["hash"].take();
        let blobs = block["blobs"].as_array().expect("a list");
        assert!((1..=20).contains(&blobs.len()), "{block}");
        all.extend(blobs.iter().map(|b| b.as_str().expect("a hash").to_owned()));
    }
    assert_eq!(last, head["hash"]);
    all
}

#[test]
fn blobs_of_one_connection_are_in_blocks_in_their_order() {
    let daemon = blockhub().up();
    let visitor = r#"
import asyncio, json, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1] + "/hopper/chain%200") as hopper:
        for n in range(50):
            await hopper.send(f"blob {n}" if n % 2 else f"blob {n}".encode())
        for n in range(50):
            assert len(json.loads(await hopper.recv())["blob"]) == 64
asyncio.run(main())
"#;
    let address = format!("ws://{}", daemon.client().address);
    assert!(Script::start(visitor, &[&address]).ends().success(), "see above");
    let found = until("all are in blocks", || {
        let found = blocks(&daemon, "chain 0");
        (found.len() == 50).then_some(found)
    });
    for (n, hash) in found.iter().enumerate() {
        assert_eq!(daemon.get(&format!("/blobs/{hash}")).text(), format!("blob {n}"));
    }
}

#[test]
fn every_blob_is_in_one_block_whatever_dies() {
    let daemon = blockhub().up();
    let start = Instant::now();

    // 1. Visitors throw blobs in; the daemon is killed when some of them are in.
    let next = AtomicUsize::new(0);
    let client = daemon.client();
    let (mut taken, setup) = thread::scope(|scope| {
        let throwing = scope.spawn(|| throw_all(client, &next));
        wait_for("some are in", || next.load(Ordering::Relaxed) >= 300);
        let setup = daemon.kill();
        (throwing.join().expect("visitors leave"), setup)
    });
    setup.wait_gone();
    assert!(taken.len() < blobs(), "it was killed too late to tell anything");

    // 2. Another one on the same data. The others are thrown in, but not those of which nobody knows.
    let daemon = setup.up();
    taken.extend(throw_all(daemon.client(), &next));
    let expected: BTreeSet<&str> = taken.values().map(String::as_str).collect();
    assert_eq!(expected.len(), taken.len());

    // 3. Once the last blocks are sealed, each blob that was taken is in one block of its chain.
    let missing = |found: &BTreeSet<String>| expected.iter().filter(|hash| !found.contains(**hash)).count();
    let all = || (0..CHAINS).flat_map(|c| blocks(&daemon, &chain(c))).collect::<Vec<_>>();
    let mut left = usize::MAX;
    while left > 0 {
        left = until("more of them are in blocks", || {
            Some(missing(&all().into_iter().collect())).filter(|missing| *missing < left)
        });
    }
    println!("{} blobs in blocks after {:.1?}", taken.len(), start.elapsed());
    for c in 0..CHAINS {
        let found = blocks(&daemon, &chain(c));
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "no blob twice");
        let of_chain = taken.iter().filter(|(blob, _)| *blob % CHAINS == c);
        assert!(of_chain.into_iter().all(|(_, hash)| distinct.contains(hash)));
    }
    for (blob, hash) in taken.iter().step_by(37) {
        assert_eq!(daemon.get(&format!("/blobs/{hash}")).text(), format!("blob {blob}"));
    }
}
