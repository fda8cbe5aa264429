//! Every bound by name, and how an end is set up.

use std::time::Duration;

use omq_tokio::options::WorkloadProfile;
use omq_tokio::{Options, Payload};

use crate::curve::Curve;

/// Handshakes in progress at one [`Router`](crate::Router); more are refused until one ends or times out.
pub const HANDSHAKES_MAX: usize = 128;
/// Connections open at once at one [`Router`](crate::Router) or
/// [`Port`](crate::memory::Port); more are closed as soon as they come.
pub const CONNECTIONS_MAX: usize = 4096;
/// How long a peer may take to say who it is, in milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// Frames that may wait to be sent to one connection, beside what the kernel holds.
pub const SEND_FRAMES_MAX: u32 = 1024;
/// Frames that may wait to be received from one connection before its sender is held up.
pub const RECV_FRAMES_MAX: u32 = 256;
/// How long frames sent before a [`close`](crate::Transport::close) get to leave, in milliseconds.
pub const CLOSE_LINGER_MS: u64 = 200;

/// Changes of connections that may wait to be read. Beyond it the list of connections is asked for instead.
pub(crate) const CHANGES_MAX: usize = 4096;

/// How much one end takes on. Exceeding a bound ends the connection (a frame too large), refuses it (too many)
/// or refuses the frame ([`SendError::Full`](crate::SendError::Full)).
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Header and payload together; a peer that sends more is cut off before memory is taken for it.
    pub frame_bytes_max: usize,
    /// See [`SEND_FRAMES_MAX`].
    pub send_frames_max: u32,
    /// See [`RECV_FRAMES_MAX`].
    pub recv_frames_max: u32,
    /// See [`HANDSHAKES_MAX`].
    pub handshakes_max: usize,
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`HANDSHAKE_MS_MAX`].
    pub handshake_ms_max: u64,
}

impl Bounds {
    /// The defaults, for frames of at most this many bytes: the largest header plus the largest payload.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            send_frames_max: SEND_FRAMES_MAX,
            recv_frames_max: RECV_FRAMES_MAX,
            handshakes_max: HANDSHAKES_MAX,
            connections_max: CONNECTIONS_MAX,
            handshake_ms_max: HANDSHAKE_MS_MAX,
        }
    }
}

/// How a [`Router`](crate::Router) is set up.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// How much it takes on.
    pub bounds: Bounds,
    /// Keys. With them, every peer on every endpoint of this router must prove to hold an allowed one; a plain
    /// ipc endpoint beside a tcp one with keys is another router.
    pub curve: Option<Curve>,
    /// Allows binding tcp beyond loopback without keys. Whoever reaches the port can then speak.
    pub exposed: bool,
    /// A connection that is silent for three times this long is asked for a sign of life and then closed; 0 never
    /// asks. Meant for tcp, where a machine can vanish without a word.
    pub heartbeat_ms: u64,
}

impl RouterOptions {
    /// No keys, loopback only, no heartbeat.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, curve: None, exposed: false, heartbeat_ms: 0 }
    }
}

/// Options with every bound set; the library's own defaults leave the size of messages unlimited.
pub(crate) fn socket(bounds: &Bounds) -> Options {
    // The library charges each part of a message with a slot of its own, so that empty ones are not free.
    let slots = 2 * size_of::<Payload>();
    Options::default()
        .workload_profile(WorkloadProfile::Throughput)
        .linger(Duration::from_millis(CLOSE_LINGER_MS))
        .send_hwm(bounds.send_frames_max)
        .recv_hwm(bounds.recv_frames_max)
        .max_message_size(bounds.frame_bytes_max.saturating_add(slots))
        .handshake_timeout(Duration::from_millis(bounds.handshake_ms_max))
        .max_pending_handshakes(bounds.handshakes_max)
        .monitor_capacity(CHANGES_MAX)
}

/// Asks a peer that says nothing for a sign of life, and ends the connection where none comes; 0 never asks.
pub(crate) fn heartbeat(options: Options, heartbeat_ms: u64) -> Options {
    if heartbeat_ms == 0 {
        return options;
    }
    let interval = Duration::from_millis(heartbeat_ms);
    options.heartbeat_interval(interval).heartbeat_timeout(3 * interval)
}
