//! Finds and ends descendants, also those that got away. Knows processes by `/proc` only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags, Signal, WaitOptions};

use super::PROCESS;

/// How long to wait for killed processes to die before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// One line of the process table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) pid: Pid,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) zombie: bool,
    /// In clock ticks since boot: tells a process from a later one with the same id.
    started: u64,
}

/// All processes that can be seen.
pub(super) fn table() -> io::Result<Vec<Entry>> {
    let mut table = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw) {
            table.extend(entry_of(pid));
        }
    }
    Ok(table)
}

/// One process; `None` if it is gone.
pub(super) fn entry_of(pid: Pid) -> Option<Entry> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The second field is the program's name in parentheses, and can contain anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X" | "x");
    let mut number = || fields.next()?.parse::<i32>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // `starttime` is field 22 of proc_pid_stat(5); the last one read was field 6.
    let started = fields.nth(15)?.parse().ok()?;
    Some(Entry { pid, parent, group, session, zombie, started })
}

/// The processes below `roots`, without `roots`.
pub(super) fn descendants(table: &[Entry], roots: &BTreeSet<i32>) -> Vec<Entry> {
    let mut children: BTreeMap<i32, Vec<&Entry>> = BTreeMap::new();
    for entry in table {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut seen = roots.clone();
    let mut open: Vec<i32> = roots.iter().copied().collect();
    let mut found = Vec::new();
    while let Some(parent) = open.pop() {
        for &&child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child.pid.as_raw_pid()) {
                open.push(child.pid.as_raw_pid());
                found.push(child);
            }
        }
    }
    found
}

/// The number in [`PROCESS`] of the environment a process was started with.
pub(super) fn cookie(pid: Pid) -> Option<u64> {
    let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).ok()?;
    let value = environ
        .split(|&b| b == 0)
        .find_map(|variable| variable.strip_prefix(PROCESS.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Signals the process that `entry` was read from, never a later one with the same id.
pub(super) fn signal(entry: &Entry, signal: Signal) -> io::Result<()> {
    let fd = match process::pidfd_open(entry.pid, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return Ok(()),
        // A kernel or a sandbox without pidfd.
        Err(_) => return Ok(process::kill_process(entry.pid, signal)?),
    };
    match entry_of(entry.pid) {
        Some(now) if now.started == entry.started => match process::pidfd_send_signal(fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        },
        _ => Ok(()),
    }
}

/// Signals a process, its group, its session and all their descendants; not those in `spare`, who belong to others.
///
/// For SIGKILL they are all stopped first, until no new one is found: a stopped process can't fork.
pub(super) fn signal_tree(root: Pid, end: Signal, spare: &BTreeSet<i32>) -> io::Result<()> {
    let mut stopped = BTreeSet::new();
    loop {
        let all = table()?;
        let id = root.as_raw_pid();
        let mut roots: BTreeSet<i32> = stopped.clone();
        roots.insert(id);
        let own = |e: &&Entry| e.pid == root || e.group == id || e.session == id;
        roots.extend(all.iter().filter(own).map(|e| e.pid.as_raw_pid()));
        let mut tree: Vec<Entry> =
            all.iter().filter(|e| roots.contains(&e.pid.as_raw_pid())).copied().collect();
        tree.extend(descendants(&all, &roots));
        tree.retain(|e| !e.zombie && (e.pid == root || !spare.contains(&e.pid.as_raw_pid())));
        let news: Vec<&Entry> = tree.iter().filter(|e| !stopped.contains(&e.pid.as_raw_pid())).collect();
        if end != Signal::KILL || news.is_empty() {
            // One that may not be signalled, such as another user's, does not save the others.
            return tree.iter().map(|e| signal(e, end)).fold(Ok(()), Result::and);
        }
        for entry in news {
            let _ = signal(entry, Signal::STOP);
            stopped.insert(entry.pid.as_raw_pid());
        }
    }
}

/// Kills what `is_own` recognises among this process's children that are not in `spare`.
pub(super) fn kill_strays(spare: &BTreeSet<i32>, is_own: impl Fn(&Entry) -> bool) -> io::Result<()> {
    for pid in children()? {
        if spare.contains(&pid.as_raw_pid()) {
            continue;
        }
        if let Some(entry) = entry_of(pid).filter(|e| !e.zombie && is_own(e)) {
            signal_tree(pid, Signal::KILL, spare)?;
            // Not in its own group or session: `signal_tree` has it as its root.
            signal(&entry, Signal::KILL)?;
        }
    }
    Ok(())
}

/// This process's children. The calling thread must be the only one, or the kernel must lack the short way.
fn children() -> io::Result<Vec<Pid>> {
    let me = process::getpid().as_raw_pid();
    match fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        Ok(list) => Ok(list
            .split_ascii_whitespace()
            .filter_map(|p| p.parse().ok())
            .filter_map(Pid::from_raw)
            .collect()),
        Err(_) => Ok(table()?.into_iter().filter(|e| e.parent == me).map(|e| e.pid).collect()),
    }
}

/// Kills every descendant of this process and reaps it. Returns when none is left but those that it may not kill.
pub(super) fn kill_all() {
    let me = BTreeSet::from([process::getpid().as_raw_pid()]);
    loop {
        // An unreadable process table leaves what dies by itself, through its parent-death signal.
        let living: Vec<Entry> = table()
            .map(|t| descendants(&t, &me))
            .unwrap_or_default()
            .into_iter()
            .filter(|e| !e.zombie)
            .collect();
        let refused: Vec<&Entry> = living.iter().filter(|e| signal(e, Signal::KILL).is_err()).collect();
        if !living.is_empty() && refused.len() == living.len() {
            let pids: Vec<i32> = refused.iter().map(|e| e.pid.as_raw_pid()).collect();
            eprintln!("keeper: these may not be ended, and are left: {pids:?}");
            return;
        }
        loop {
            match process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_line() {
        let me = entry_of(process::getpid()).unwrap();
        assert_eq!(Pid::from_raw(me.parent), process::getppid());
        assert_eq!(me.session, nix::unistd::getsid(None).unwrap().as_raw());
        assert!(me.started > 0 && !me.zombie);
        assert!(table().unwrap().iter().any(|e| e.pid == me.pid));
    }

    #[test]
    fn descendants_of_descendants() {
        let entry = |pid, parent| Entry {
            pid: Pid::from_raw(pid).unwrap(),
            parent,
            group: 0,
            session: 0,
            zombie: false,
            started: 0,
        };
        let table = [entry(2, 1), entry(3, 2), entry(4, 3), entry(5, 1), entry(6, 9), entry(9, 6)];
        let found: BTreeSet<i32> =
            descendants(&table, &BTreeSet::from([2])).iter().map(|e| e.pid.as_raw_pid()).collect();
        assert_eq!(found, BTreeSet::from([3, 4]));
    }
}
