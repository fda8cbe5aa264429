//! Starts a program: in a session of its own, with nothing inherited but what it is given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bourse_wire::keeper::v1::Spawn;
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};

use super::{CONTROL_FD, PROCESS, SECRET_BYTES_MAX, SECRET_FD};

/// A program that runs.
pub(super) struct Running {
    pub(super) pid: Pid,
    /// The keeper's end of a template's socket.
    pub(super) control: Option<UnixStream>,
}

/// Starts the program, or says for people why it can't be.
pub(super) fn start(spawn: &Spawn) -> Result<Running, String> {
    let Some(program) = spawn.argv.first().filter(|p| !p.is_empty()) else {
        return Err("no program given".into());
    };
    if !spawn.cwd.is_empty() && !Path::new(&spawn.cwd).is_dir() {
        return Err(format!("no such folder: {}", spawn.cwd));
    }
    let mut command = Command::new(program);
    command.args(&spawn.argv[1..]).env_clear().envs(&spawn.env);
    // Padded for a template, so that its forks can write their own numbers over it.
    let number = if spawn.template { format!("{:020}", spawn.process) } else { spawn.process.to_string() };
    command.env(PROCESS, number);
    command.stdin(Stdio::null());
    if !spawn.cwd.is_empty() {
        command.current_dir(&spawn.cwd);
    }
    let (stdout, stderr) = output(&spawn.log)?;
    command.stdout(stdout).stderr(stderr);

    let mut inherited = Vec::new();
    if !spawn.secret.is_empty() {
        let fd = secret_pipe(&spawn.secret)?;
        inherited.push((SECRET_FD, fd));
    }
    let mut control = None;
    if spawn.template {
        let (ours, theirs) = UnixStream::pair().map_err(|e| format!("no socket for the template: {e}"))?;
        control = Some(ours);
        inherited.push((CONTROL_FD, theirs.into()));
    }
    for (name, fd) in &inherited {
        command.env(name, std::os::fd::AsRawFd::as_raw_fd(fd).to_string());
    }
    let fds = inherited.into_iter().map(|(_, fd)| fd).collect();
    let child = spawn_detached(&mut command, fds).map_err(|e| explain(program, &e))?;
    Ok(Running { pid: Pid::from_child(&child), control })
}

/// Spawns `command` as the leader of a new session that dies with this process and inherits `fds` too. The standard
/// library restores SIGPIPE; the other dispositions are the keeper's own, which are the default ones.
fn spawn_detached(command: &mut Command, fds: Vec<OwnedFd>) -> io::Result<std::process::Child> {
    let keeper = rustix::process::getpid();
    let prepare = move || {
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The keeper may have died before the line above.
        if rustix::process::getppid() != Some(keeper) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        for fd in &fds {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes plain system calls on values made before the fork: it takes no lock, allocates
    // nothing and the keeper has one thread.
    #[expect(
        unsafe_code,
        reason = "a session and a parent-death signal can only be set between fork and exec"
    )]
    unsafe {
        command.pre_exec(prepare)
    };
    command.spawn()
}

/// Marks every descriptor above the standard ones to be closed in children, also what the keeper inherited.
pub(super) fn close_others_on_exec() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|&fd| fd > 2).collect();
    for number in numbers {
        // SAFETY: the number is only used for this call, which leaves alone what the descriptor refers to; if it
        // was closed since (as that of the folder read above), the call fails and that is all.
        #[expect(unsafe_code, reason = "inherited descriptors are known by number only")]
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC);
    }
}

/// A pipe that holds the secret and then its end.
fn secret_pipe(secret: &[u8]) -> Result<OwnedFd, String> {
    if secret.len() > SECRET_BYTES_MAX {
        return Err(format!("a secret of {} bytes, at most {SECRET_BYTES_MAX} are allowed", secret.len()));
    }
    let (read, write) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("no pipe for the secret: {e}"))?;
    File::from(write).write_all(secret).map_err(|e| format!("the secret could not be handed over: {e}"))?;
    Ok(read)
}

/// Standard output and error, appended to `log`; to nowhere if it is empty.
fn output(log: &str) -> Result<(Stdio, Stdio), String> {
    if log.is_empty() {
        return Ok((Stdio::null(), Stdio::null()));
    }
    make_log_folder(log)?;
    let open = || {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        Ok((file.try_clone()?.into(), file.into()))
    };
    open().map_err(|e: io::Error| format!("the log file {log} can't be opened: {e}"))
}

pub(super) fn make_log_folder(log: &str) -> Result<(), String> {
    match Path::new(log).parent() {
        Some(folder) => {
            fs::create_dir_all(folder).map_err(|e| format!("no folder for the log file {log}: {e}"))
        }
        None => Ok(()),
    }
}

fn explain(program: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound if Path::new(program).exists() => {
            format!("{program} can't be run: the interpreter that its first line names does not exist")
        }
        ErrorKind::NotFound => format!("no such file: {program}"),
        ErrorKind::PermissionDenied => format!("permission denied: {program} (is it executable?)"),
        ErrorKind::ArgumentListTooLong => format!("{program}: its arguments and environment are too long"),
        ErrorKind::InvalidInput => format!("{program}: an argument or variable contains a zero byte"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("{program} is not a program (has a script no #! line?)")
        }
        _ => format!("{program} can't be started: {error}"),
    }
}
