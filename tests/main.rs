//! End to end: the real binary, real Python, real sockets, files and signals. One file per topic; `support` starts
//! daemons and talks to them.
//!
//! Each test has a folder and a daemon of its own and may run beside all others. Nothing sleeps to let something
//! happen: what is to happen is looked for until a deadline. `BOURSE_TEST_LONG=1` adds the long runs.

mod blockhub;
mod bridges;
mod calls;
mod catalogue;
mod clients;
mod deploy;
mod discovery;
mod durable;
mod egress;
mod grid;
mod grid_faults;
mod grid_load;
mod histories;
mod hosts;
mod http;
mod input;

mod instances;
mod membership;
mod nearby;
mod one_store;
mod reload;
mod smtp;
mod sorting;
mod store;
mod support;
mod treedb;
mod triggers;
mod values;
mod walker;
mod websocket;
mod workers;
