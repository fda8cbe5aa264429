//! So many requests and no more, 64 at a time, from one thread.

use std::cell::RefCell;
use std::ops::Range;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http;
use crate::process::local;

const IN_FLIGHT: usize = 64;
/// The longest answer that is understood.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends the request of each number, and hands over its answer: number, status, body.
pub(crate) fn each(
    port: u16,
    numbers: Range<usize>,
    request: impl Fn(usize) -> String,
    answer: impl FnMut(usize, u16, &str) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (numbers, answer) = (RefCell::new(numbers), RefCell::new(answer));
    let one = async || -> Result<()> {
        let mut stream = TcpStream::connect(local(port)).await?;
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let next = numbers.borrow_mut().next();
            let Some(number) = next else { return Ok(()) };
            stream.write_all(request(number).as_bytes()).await?;
            let mut have = 0;
            loop {
                let read = stream.read(&mut buffer[have..]).await?;
                if read == 0 {
                    bail!("the connection was closed");
                }
                have += read;
                if let Some((status, body)) = http::answer(&buffer[..have])? {
                    answer.borrow_mut()(number, status, &body)?;
                    break;
                }
            }
        }
    };
    let all: Vec<_> = (0..IN_FLIGHT).map(|_| one()).collect();
    runtime.block_on(futures_util::future::try_join_all(all)).map(drop)
}
