//! The floor: an echo of 100 bytes over a Unix socket between two processes, as bare as it can be.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http::median;
use crate::process::{Running, until};

const BYTES: usize = 100;
const IN_FLIGHT: usize = 64;

/// The other process.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let (mut stream, _) = UnixListener::bind(socket)?.accept()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
    }
}

/// Sequential p50 in microseconds, and echoes per second with 64 in flight.
pub(crate) fn measure(folder: &Path, seconds: f64) -> Result<(f64, f64)> {
    let socket = folder.join("floor");
    let _ = std::fs::remove_file(&socket);
    let _server = Running::start(
        Command::new(std::env::current_exe()?).arg("floor").arg(&socket),
        &folder.join("floor.log"),
    )?;
    let mut stream = until("the floor's other process", || UnixStream::connect(&socket).ok())?;
    let message = [7; BYTES];
    let mut buffer = vec![0; 64 * 1024];
    let mut times = Vec::new();
    let end = Instant::now() + Duration::from_secs_f64(seconds / 2.0);
    while Instant::now() < end {
        let begin = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut buffer[..BYTES])?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    for _ in 0..IN_FLIGHT {
        stream.write_all(&message)?;
    }
    let (mut done, mut part, begin) = (0usize, 0, Instant::now());
    while begin.elapsed().as_secs_f64() < seconds / 2.0 {
        part += stream.read(&mut buffer)?;
        for _ in 0..part / BYTES {
            stream.write_all(&message)?;
            done += 1;
        }
        part %= BYTES;
    }
    Ok((median(&mut times), done as f64 / begin.elapsed().as_secs_f64()))
}
