//! A program of its own on a grid: says what there is to call, calls a function once for each item, all at once, and leaves.
//!
//! ```sh
//! bourse up functions --listen 127.0.0.1:7071
//! cargo run -p bourse-client --example shop -- --ticket $(bourse ticket --quiet -C functions) hello.hello Ada Grace
//! cargo run -p bourse-client --example shop -- hello.hello Alan         # from now on without a ticket
//! ```

use std::future::IntoFuture as _;

use bourse_client::{Client, Error, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let ticket = match words.first().map(String::as_str) {
        Some("--ticket") => words.drain(..2.min(words.len())).nth(1),
        _ => None,
    };
    if let Err(error) = run(ticket.as_deref(), &words).await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

async fn run(ticket: Option<&str>, words: &[String]) -> Result<(), Error> {
    let options = Options::default().name("shop");
    // The ticket is for the first time: from then on the keys in this folder are enough.
    let client = match ticket {
        Some(ticket) => Client::join(ticket, "shop-keys", options).await?,
        None => Client::open("shop-keys", options).await?,
    };
    for module in client.modules().await? {
        let functions: Vec<&str> = module.functions.iter().map(|function| function.name.as_str()).collect();
        println!("{} {} has {}", module.name, module.version, functions.join(", "));
    }
    if let Some((function, items)) = words.split_first() {
        // Each goes straight to a node that has a slot for it.
        let begin = |item: &String| tokio::spawn(client.call(function).arg(item.as_str()).into_future());
        let calls: Vec<_> = items.iter().map(begin).collect();
        for (item, call) in items.iter().zip(calls) {
            let reply = call.await.expect("a call does not panic")?;
            println!("{item}: {}", reply.value()?);
        }
    }
    client.close().await;
    Ok(())
}
