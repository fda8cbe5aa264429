//! What the gateway costs: an echo function behind it, in one process on one thread, beside a bare hyper echo.
//!
//! ```text
//! cargo run --release -p bourse-gateway --example http_echo        # the gateway on 7080, bare hyper on 7081
//! wrk -c64 -t1 -d5s -s crates/gateway/examples/http_echo.lua http://127.0.0.1:7080/v1/call/demo.echo
//! wrk -c64 -t1 -d5s -s crates/gateway/examples/http_echo.lua http://127.0.0.1:7081/
//! ```

use std::convert::Infallible;

use bourse_gateway::{Answer, Config, Deployed, Event, Gateway, Routes, Success, metrics};
use bourse_wire::arguments::Arguments;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scrape = metrics::install()?;
    let (events, inbox) = unbounded_channel();
    let gateway = Gateway::new(Config { scrape: Some(scrape), ..Config::default() }, events);
    let echo = v1::Function {
        name: "echo".into(),
        parameters: vec![v1::Parameter { name: "body".into(), ..Default::default() }],
        http: vec!["POST /echo".into()],
        ..Default::default()
    };
    let module = v1::Module { name: "demo".into(), functions: vec![echo], ..Default::default() };
    gateway.set_routes(Routes::new(&[Deployed { module }], &[])?);
    gateway.set_ready(true);
    let listener = gateway.listen(([127, 0, 0, 1], 7080).into())?;
    tokio::spawn(daemon(inbox));
    tokio::spawn(bare(TcpListener::bind("127.0.0.1:7081").await?));
    listener.serve(std::future::pending()).await;
    Ok(())
}

/// Answers each call with its `body`.
async fn daemon(mut inbox: UnboundedReceiver<Event>) {
    while let Some(event) = inbox.recv().await {
        if let Event::Call { call, ticket, reply } = event {
            let named = Arguments::from_cbor(&call.arguments).map(|a| a.named).unwrap_or_default();
            let payload = named.first().map(|(_, body)| body.to_cbor()).unwrap_or_default();
            let call = Some(CallId::new(ticket.0, [0; 10]));
            // A client that has gone does not take its answer.
            let _ = reply.send(Answer { call, result: Ok(Success { payload, ..Success::default() }) });
        }
    }
}

/// hyper alone.
async fn bare(listener: TcpListener) {
    let echo = |request: Request<Incoming>| async {
        let body = request.into_body().collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    };
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}
