//! What the gateway counts, under names that dashboards rely on.
//!
//! Series are bounded: functions that exist times four classes of status, and [`Class`]es. Handles are looked up
//! once per table of routes, so [`install`] comes before the first table.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

pub use metrics_exporter_prometheus::PrometheusHandle as Scrape;

use crate::smtp;

/// Requests answered, by `route` (see [`Class`]), `function` (empty where none was reached) and `status` (2xx…).
pub const REQUESTS: &str = "bourse_http_requests_total";
/// Seconds from a request's head to its answer's head, by `route` and `function`.
pub const LATENCY: &str = "bourse_http_request_seconds";
/// Requests being answered.
pub const IN_FLIGHT: &str = "bourse_http_requests_in_flight";
/// Open connections.
pub const CONNECTIONS: &str = "bourse_http_connections";
/// Bytes of request bodies read.
pub const BYTES_IN: &str = "bourse_http_request_body_bytes_total";
/// Bytes of answers' bodies.
pub const BYTES_OUT: &str = "bourse_http_response_body_bytes_total";
/// Calls whose client went away before the answer.
pub const ABANDONED: &str = "bourse_http_abandoned_calls_total";

/// Upper bounds of the latency buckets, in seconds.
pub const LATENCY_BUCKETS: [f64; 13] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// How often [`Scrape::run_upkeep`] must run, so that histograms which nobody scrapes do not grow; a
/// [`Listener`](crate::Listener) sees to it.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// What a request that reached no function was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `/healthz`, `/readyz`, `/metrics`.
    Health,
    /// The rest of the daemon's own paths.
    Api,
    /// Refused before it was looked at: Host, Origin, token.
    Refused,
    /// Nothing there.
    Nothing,
}

/// Installs the Prometheus recorder for the whole process.
pub fn install() -> Result<Scrape, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?;
    let scrape = builder.install_recorder()?;
    describe_counter!(REQUESTS, "Requests answered");
    describe_histogram!(LATENCY, "Seconds from a request's head to its answer's head");
    describe_gauge!(IN_FLIGHT, "Requests being answered");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(BYTES_IN, "Bytes of request bodies read");
    describe_counter!(BYTES_OUT, "Bytes of answers' bodies");
    describe_counter!(ABANDONED, "Calls whose client went away before the answer");
    describe_counter!(smtp::MAILS, "Mails whose data came");
    describe_gauge!(smtp::CONNECTIONS, "Open connections for mail");
    Ok(scrape)
}

/// Handles for one function or class.
pub(crate) struct Meter {
    /// By hundred, from 200.
    statuses: [Counter; 4],
    latency: Histogram,
}

impl Meter {
    pub(crate) fn of_function(name: &str) -> Self {
        Self::new("function", name)
    }

    fn new(route: &'static str, function: &str) -> Self {
        let count = |status: &'static str| counter!(REQUESTS, "route" => route, "function" => function.to_owned(), "status" => status);
        Self {
            statuses: ["2xx", "3xx", "4xx", "5xx"].map(count),
            latency: histogram!(LATENCY, "route" => route, "function" => function.to_owned()),
        }
    }

    pub(crate) fn record(&self, status: http::StatusCode, took: Duration) {
        self.statuses[usize::from(status.as_u16() / 100).clamp(2, 5) - 2].increment(1);
        self.latency.record(took);
    }
}

/// Handles for everything that is not one function's.
pub(crate) struct Meters {
    classes: [Meter; 4],
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) abandoned: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            classes: ["health", "api", "refused", "nothing"].map(|route| Meter::new(route, "")),
            in_flight: gauge!(IN_FLIGHT),
            connections: gauge!(CONNECTIONS),
            bytes_in: counter!(BYTES_IN),
            bytes_out: counter!(BYTES_OUT),
            abandoned: counter!(ABANDONED),
        }
    }

    pub(crate) fn class(&self, class: Class) -> &Meter {
        &self.classes[class as usize]
    }
}
