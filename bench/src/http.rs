//! Load over HTTP: one request after the other from here, many at once from wrk.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::process::local;

/// What tells one request from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Differ {
    /// Nothing.
    Not,
    /// The last part of the path.
    InPath,
}

/// Requests, one like the other as far as may be.
struct Requests<'a> {
    differ: Differ,
    port: u16,
    path: &'a str,
    body: &'a str,
    run: String,
    count: u64,
}

impl<'a> Requests<'a> {
    fn new(differ: Differ, port: u16, path: &'a str, body: &'a str) -> Self {
        Self { differ, port, path, body, run: run(), count: 0 }
    }

    fn next(&mut self) -> String {
        let own = format!("{}-{}", self.run, self.count);
        self.count += 1;
        match self.differ {
            Differ::Not => request(self.port, "POST", self.path, "", self.body),
            Differ::InPath => request(self.port, "POST", &format!("{}/{own}", self.path), "", self.body),
        }
    }
}

/// What no run before has called itself.
fn run() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}", since.as_nanos())
}

/// The text of a request; `headers` are whole lines.
pub(crate) fn request(port: u16, method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    port: u16,
    buffer: Vec<u8>,
}

/// The longest answer that is understood.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(local(port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream, port, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<(u16, String)> {
        let request = self.request("POST", path, body);
        self.exchange(request.as_bytes())
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<(u16, String)> {
        let request = self.request("GET", path, "");
        self.exchange(request.as_bytes())
    }

    /// The median of one POST after the other, in microseconds.
    pub(crate) fn latency(&mut self, path: &str, body: &str, seconds: f64, differ: Differ) -> Result<f64> {
        let mut requests = Requests::new(differ, self.port, path, body);
        let warm = Instant::now() + Duration::from_secs_f64(seconds / 8.0);
        let end = warm + Duration::from_secs_f64(seconds);
        let mut times = Vec::new();
        loop {
            let request = requests.next();
            let begin = Instant::now();
            if begin > end {
                break;
            }
            let (status, _) = self.exchange(request.as_bytes())?;
            if status != 200 {
                bail!("{path}: status {status}");
            }
            if begin > warm {
                times.push(begin.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(median(&mut times))
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        request(self.port, method, path, "", body)
    }

    fn exchange(&mut self, request: &[u8]) -> Result<(u16, String)> {
        self.stream.write_all(request)?;
        let mut have = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[have..])?;
            if read == 0 {
                bail!("the connection was closed");
            }
            have += read;
            if let Some((status, body)) = answer(&self.buffer[..have])? {
                return Ok((status, body.into_owned()));
            }
        }
    }
}

/// Status and body of an answer; `None`: it has not come as a whole.
pub(crate) fn answer(have: &[u8]) -> Result<Option<(u16, Cow<'_, str>)>> {
    let Some(head_end) = have.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&have[..head_end])?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())?.ok()
    });
    let body = head_end + 4;
    let complete = match length {
        Some(length) => have.len() >= body + length,
        None => have.ends_with(b"0\r\n\r\n"),
    };
    if !complete {
        return Ok(None);
    }
    let status = head.split(' ').nth(1).context("a status line")?.parse()?;
    Ok(Some((status, String::from_utf8_lossy(&have[body..]))))
}

/// Answers per second to 64 connections.
pub(crate) fn throughput(script: &Path, port: u16, path: &str, seconds: f64, differ: Differ) -> Result<f64> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c64", "--timeout", "10s"]).arg(format!("-d{}s", seconds.ceil()));
    match differ {
        Differ::Not => {}
        Differ::InPath => _ = wrk.env("DIFFER", "path").env("RUN", run()),
    }
    let output = wrk.arg("-s").arg(script).arg(format!("http://127.0.0.1:{port}{path}")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line =
        text.lines().find_map(|l| l.strip_prefix("WRK ")).with_context(|| format!("wrk said {text}"))?;
    let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [requests, microseconds, bad] = numbers[..] else { bail!("wrk said {line}") };
    if bad > 0.0 {
        bail!("{path}: {bad} of {requests} requests failed");
    }
    Ok(requests / microseconds * 1e6)
}

/// The middle one.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
