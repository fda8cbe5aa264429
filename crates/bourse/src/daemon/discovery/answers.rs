//! Who this node is, for those who know its address alone: questions are answered over UDP, at the port that others connect to.
//!
//! ```text
//! anybody -> node: question          node -> anybody: answer
//! ```
//!
//! An answer is shorter than its question, so that nobody can be flooded by it under a false address; it tells a public key, and the
//! name of the grid. Everything else that comes is dropped.

use std::net::SocketAddr;
use std::time::Duration;

use bourse_wire::beacon::{BYTES_MAX, Beacon, Datagram};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::UdpSocket;

/// After an error of the socket it is left alone for this long.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// The socket, and what is said.
pub(super) struct Answers {
    socket: UdpSocket,
    beacon: Beacon,
}

impl Answers {
    /// Binds the UDP port of the same number as the TCP port that is listened on.
    pub(super) fn start(listening: SocketAddr, beacon: Beacon) -> std::io::Result<Self> {
        let family = if listening.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        // The group of `multicast` has the same number, and would be in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &listening)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, beacon })
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        let mut bytes = [0; BYTES_MAX];
        loop {
            match self.socket.recv_from(&mut bytes).await {
                Ok((length, from)) => {
                    if let Some(answer) = self.answer(&bytes[..length]) {
                        // Where there is no room, the question comes again.
                        let _ = self.socket.try_send_to(&answer, from);
                    }
                }
                Err(error) => {
                    tracing::debug!("no question is heard: {error}");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match Datagram::decode(bytes)? {
            Datagram::Question { nonce } => {
                Some(Datagram::Answer { nonce, beacon: self.beacon.clone() }.encode())
            }
            _ => None,
        }
    }
}
