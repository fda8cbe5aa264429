//! Machines made of network namespaces: each with an address and a loopback of its own, joined by a switch, whose
//! cables can be cut.
//!
//! The switch is a bridge in a namespace of its own, so that the machine under test gets no interface, route or rule;
//! all of it goes with the namespaces.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An address of nobody: frames to it are flooded, and taken by no one.
const NOBODY: &str = "02:00:00:00:00:01";

/// Names that are tried: a test that was killed may have left its own.
const TRIES: u32 = 100;

/// Some hosts on one network. Dropping it removes them; what still runs there loses its network.
pub(crate) struct Hosts {
    /// What the names of all namespaces begin with.
    name: String,
    count: u8,
}

impl Hosts {
    /// So many of them; or why the machine cannot have any, for [`skipped`](super::skipped).
    pub(crate) fn new(count: u8) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cannot = |why: String| format!("no network namespaces here: {why}");
        for _ in 0..TRIES {
            let name = format!("b{:x}s{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            match ip(&["netns", "add", &format!("{name}switch")]) {
                Err(why) if why.contains("File exists") => {}
                Err(why) => return Err(cannot(why)),
                Ok(()) => {
                    let hosts = Self { name, count };
                    return hosts.connect().map(|()| hosts).map_err(cannot);
                }
            }
        }
        Err(cannot(format!("{TRIES} names are taken")))
    }

    /// The namespace's name, for `ip netns exec`.
    pub(crate) fn name(&self, at: u8) -> String {
        assert!(at < self.count, "there are {} hosts", self.count);
        format!("{}h{at}", self.name)
    }

    /// Where others reach it.
    pub(crate) fn address(&self, at: u8) -> Ipv4Addr {
        assert!(at < self.count, "there are {} hosts", self.count);
        Ipv4Addr::new(10, 77, 0, at + 1)
    }

    /// What has a program run there, when it is put before it.
    pub(crate) fn wrapper(&self, at: u8) -> Vec<String> {
        ["ip", "netns", "exec", &self.name(at)].map(str::to_owned).to_vec()
    }

    /// Runs a program there.
    pub(crate) fn command(&self, at: u8, program: &str) -> Command {
        let wrapper = self.wrapper(at);
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg(program);
        command
    }

    /// Does something in a thread that is there: sockets it makes are the host's, wherever they are used later.
    pub(crate) fn inside<T: Send>(&self, at: u8, work: impl FnOnce() -> T + Send) -> T {
        self.door(at).inside(work)
    }

    /// A way in, for those who are not to hold the hosts meanwhile.
    pub(crate) fn door(&self, at: u8) -> Door {
        Door(Some(Path::new("/run/netns").join(self.name(at))))
    }

    /// Pulls its cable: nothing comes in or goes out, and nobody is told.
    pub(crate) fn cut(&self, at: u8) {
        self.port(at, "down");
    }

    /// Plugs it in again.
    pub(crate) fn heal(&self, at: u8) {
        self.port(at, "up");
    }

    /// Loses all that one host sends to another; the other way goes on. Made of a neighbour that nobody is: no
    /// firewall is needed.
    pub(crate) fn mute(&self, from: u8, to: u8) {
        let (name, address) = (self.name(from), self.address(to).to_string());
        done(&[
            "-n",
            &name,
            "neigh",
            "replace",
            &address,
            "lladdr",
            NOBODY,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ]);
    }

    /// Ends that.
    pub(crate) fn unmute(&self, from: u8, to: u8) {
        done(&["-n", &self.name(from), "neigh", "del", &self.address(to).to_string(), "dev", "eth0"]);
    }

    /// Holds up all that it sends for so long; or why the machine cannot, for [`skipped`](super::skipped).
    pub(crate) fn delay(&self, at: u8, delay: Duration) -> Result<(), String> {
        let delay = format!("{}us", delay.as_micros());
        let netem = ["qdisc", "replace", "dev", "eth0", "root", "netem", "delay", &delay];
        run("tc", &[&["-n", &self.name(at)], &netem[..]].concat())
            .map_err(|why| format!("no delays of packets here: {why}"))
    }

    fn port(&self, at: u8, state: &str) {
        assert!(at < self.count, "there are {} hosts", self.count);
        done(&["-n", &self.switch(), "link", "set", &format!("port{at}"), state]);
    }

    fn switch(&self) -> String {
        format!("{}switch", self.name)
    }

    fn connect(&self) -> Result<(), String> {
        let switch = self.switch();
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge", "up"])?;
        for at in 0..self.count {
            let (name, port) = (self.name(at), format!("port{at}"));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&[
                "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &name, "address", "add", &format!("{}/24", self.address(at)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }
}

/// A way into a host; or none that is needed, where all nodes are side by side.
pub(crate) struct Door(Option<PathBuf>);

impl Door {
    /// One that leads nowhere else.
    pub(crate) fn open() -> Self {
        Self(None)
    }

    /// Does something in a thread that is there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Some(path) = &self.0 else { return work() };
        let namespace = std::fs::File::open(path).expect("a namespace is a file");
        thread::scope(|scope| {
            let there = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("whoever makes a namespace may enter it");
                work()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for at in 0..self.count {
            let _ = ip(&["netns", "delete", &self.name(at)]);
        }
        let _ = ip(&["netns", "delete", &self.switch()]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

/// What the machine could do when the hosts were made, it can do now.
#[track_caller]
fn done(arguments: &[&str]) {
    ip(arguments).expect("the hosts can be changed");
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // Debian has it: that is no reason to skip a test where all packages are to be there.
            panic!("{program} is missing; it is in Debian's iproute2: apt-get install iproute2")
        }
        Err(e) => Err(format!("{program} cannot be run: {e}")),
    }
}
