//! One fork server, as the keeper sees it: its socket and the forks it owes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;

use bourse_wire::keeper::v1::from_template::Message as Report;
use bourse_wire::keeper::v1::{self, ForkOne, Forked, FromTemplate, ToTemplate, to_template};
use prost::bytes::Bytes;
use rustix::process::Signal;

use super::SECRET_BYTES_MAX;
use super::link::{Link, Read1};

/// A signal that waits for its process to be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) signal: Signal,
    pub(super) tree: bool,
}

#[derive(Debug)]
pub(super) struct Template {
    pub(super) link: Link,
    /// Forks asked for and not answered; with the signal sent to them meanwhile.
    pub(super) owed: BTreeMap<u64, Option<Waiting>>,
}

/// What a template said.
#[derive(Debug)]
pub(super) enum Said {
    /// For the daemon.
    Report(FromTemplate),
    Forked(Forked),
    /// Nothing more for now.
    Nothing,
    /// It closed its socket, as it does when it exits.
    Ended,
    /// It wrote what is no message, or its socket failed: the text says which.
    Lost(String),
}

impl Template {
    pub(super) fn new(control: UnixStream) -> io::Result<Self> {
        Ok(Self { link: Link::new(control)?, owed: BTreeMap::new() })
    }

    /// Asks for an instance.
    pub(super) fn fork(&mut self, process: u64, secret: Bytes, log: String) -> Result<(), String> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(format!(
                "a secret of {} bytes, at most {SECRET_BYTES_MAX} are allowed",
                secret.len()
            ));
        }
        if !self.link.has_room() {
            return Err("the template takes no orders".into());
        }
        let message = Some(to_template::Message::Fork(ForkOne { process, secret, log }));
        self.link.send(&ToTemplate { message }).map_err(|e| format!("the template is gone: {e}"))?;
        self.owed.insert(process, None);
        Ok(())
    }

    /// The next thing it said that has arrived.
    pub(super) fn next(&mut self) -> Said {
        loop {
            match self.link.next::<FromTemplate>() {
                Ok(Some(v1::FromTemplate { message: Some(Report::Forked(forked)) })) => {
                    return Said::Forked(forked);
                }
                Ok(Some(report @ v1::FromTemplate { message: Some(_) })) => return Said::Report(report),
                // A message of a later version: nothing that this one knows of.
                Ok(Some(v1::FromTemplate { message: None })) => continue,
                Ok(None) => {}
                Err(e) => return Said::Lost(format!("the template wrote {e}")),
            }
            match self.link.read() {
                Ok(Read1::Some) => {}
                Ok(Read1::Nothing) => return Said::Nothing,
                Ok(Read1::End) => return Said::Ended,
                Err(e) => return Said::Lost(format!("the template's socket failed: {e}")),
            }
        }
    }
}
