//! The bounds and times of a node, each with its name. All of them can differ per module where that makes sense.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_wire::id::FunctionName;
use bytes::Bytes;

/// How a node behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name, for people.
    pub name: String,
    /// What clients and attached workers say hello with. Empty refuses them all.
    pub token: Bytes,
    /// Most instances that run a call at the same time; blocked ones do not count.
    pub running_max: usize,
    /// Most living instances, idle ones included, blocked ones not.
    pub instances_max: usize,
    /// Largest arguments and results, in bytes.
    pub payload_bytes_max: usize,
    /// How deep calls may be nested.
    pub depth_max: u32,
    /// Most calls handed to an instance beyond the one that it runs.
    pub ahead_max: usize,
    /// Between two pings of an instance that is not running a call.
    pub ping: Duration,
    /// So many pings without an answer make a zombie.
    pub pings_missed_max: u32,
    /// How long an instance or template may take to start.
    pub startup: Duration,
    /// The first pause of a module whose instances crash or do not start; it doubles each time.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// How long the calls in flight may take when the node stops.
    pub drain: Duration,
    /// How long an ended durable call can be asked for, and an idempotency key holds. Counts from the start.
    pub calls_kept: Duration,
    /// How long an instance has to stop a call whose time is over, before it is killed.
    pub interrupt_grace: Duration,
    /// Calls handed ahead are taken back when the one before them runs longer than this.
    pub recall_after: Duration,
    /// Pass-through context of one call, in bytes.
    pub context_bytes_max: usize,
    /// Calls of one client or one invocation that are not answered yet.
    pub requests_max: usize,
    /// For modules that have no settings of their own.
    pub module: ModuleConfig,
    /// Who it is among other nodes; `None`: it is alone.
    pub grid: Option<crate::GridConfig>,
    /// The function that is told of calls which wait for capacity that nobody has; `None`: nobody is told.
    pub on_shortage: Option<FunctionName>,
    /// It is told when one has waited for so long.
    pub shortage_after: Duration,
    /// What operators have deployed, as it was kept; of the node that keeps the store.
    pub deployments: Vec<crate::Deployment>,
    /// Settings of single modules.
    pub modules: BTreeMap<String, ModuleConfig>,
}

/// How one module behaves.
#[derive(Clone, Debug)]
pub struct ModuleConfig {
    /// Instances kept even when idle.
    pub instances_min: usize,
    /// Most instances, blocked ones not counted; `None`: as many as may run on the node.
    pub instances_max: Option<usize>,
    /// How long a call may take, if neither caller nor function says.
    pub timeout: Duration,
    /// How long it may wait for an instance, if neither says.
    pub queue_wait: Duration,
    /// Another instance is started when calls wait longer than this.
    pub scale_after: Duration,
    /// Most waiting calls.
    pub queue_max: usize,
    /// Most instances that wait for nested calls.
    pub blocked_max: usize,
    /// An instance without work stops after this.
    pub idle: Duration,
}

impl Default for ModuleConfig {
    fn default() -> Self {
        Self {
            instances_min: 0,
            instances_max: None,
            timeout: Duration::from_secs(60),
            queue_wait: Duration::from_secs(10),
            scale_after: Duration::from_millis(20),
            queue_max: 10_000,
            blocked_max: 64,
            idle: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// The defaults for a machine with so many cores.
    pub fn new(cores: usize) -> Self {
        Self {
            name: "bourse".to_owned(),
            token: Bytes::new(),
            running_max: 2 * cores.max(1),
            instances_max: 16 * cores.max(1),
            payload_bytes_max: 16 * 1024 * 1024,
            depth_max: 128,
            ahead_max: 8,
            ping: Duration::from_secs(5),
            pings_missed_max: 3,
            startup: Duration::from_secs(30),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            calls_kept: bourse_durable::limits::ENDED_KEPT,
            interrupt_grace: Duration::from_secs(1),
            recall_after: Duration::from_millis(10),
            context_bytes_max: 8 * 1024,
            requests_max: 100_000,
            module: ModuleConfig::default(),
            grid: None,
            on_shortage: None,
            shortage_after: Duration::from_secs(5),
            deployments: Vec::new(),
            modules: BTreeMap::new(),
        }
    }

    /// The settings of a module.
    pub fn of(&self, module: &str) -> &ModuleConfig {
        self.modules.get(module).unwrap_or(&self.module)
    }
}
