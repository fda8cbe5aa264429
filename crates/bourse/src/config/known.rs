//! Every setting there is, with its default and what it means. The one list behind flags, environment variables,
//! `bourse.toml`, its JSON schema and `bourse config show`.

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// A whole number.
    Count,
    /// "5s", "200ms", "1m"; a bare number is seconds.
    Duration,
    /// "16MiB", "64KiB"; a bare number is bytes.
    Size,
    /// true or false.
    Flag,
    /// A list of texts; in the environment, separated by commas.
    List,
    /// "127.0.0.1:7070", "localhost:7070", ":7070"
    Address,
}

/// Where a setting may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `[daemon]`
    Daemon,
    /// `[daemon]` for all modules, or `[modules.NAME]` for one.
    Module,
}

/// When a change of `bourse.toml` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At once.
    Now,
    /// When the daemon is started again.
    Start,
}

pub(crate) struct Setting {
    pub name: &'static str,
    pub scope: Scope,
    pub at: When,
    pub shape: Shape,
    /// As it would be written; empty means that it is computed or unset.
    pub default: &'static str,
    pub about: &'static str,
}

const fn daemon(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Setting {
    Setting { name, scope: Scope::Daemon, at: When::Start, shape, default, about }
}

/// A setting of the daemon that can change while it runs.
const fn live(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Setting {
    Setting { name, scope: Scope::Daemon, at: When::Now, shape, default, about }
}

const fn module(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Setting {
    Setting { name, scope: Scope::Module, at: When::Now, shape, default, about }
}

pub(crate) const SETTINGS: &[Setting] = &[
    daemon("http", Shape::Address, "127.0.0.1:7070", "address that serves HTTP; port 0 picks a free one"),
    daemon(
        "data",
        Shape::Text,
        "",
        "folder for the store, logs and token; .bourse in the served folder if not set",
    ),
    daemon(
        "store",
        Shape::Text,
        "sqlite",
        "where state is kept: sqlite (in the data folder), memory, or grid (by another node)",
    ),
    daemon(
        "history",
        Shape::Text,
        "",
        "file to which every change of the store is written, in order, for checkers and post-mortems: it grows without end, and costs two writes for each group of commits; off if not set",
    ),
    daemon(
        "environments",
        Shape::Text,
        "",
        "folder for Python environments, shared between served folders; bourse in the user's cache folder if not set",
    ),
    daemon(
        "python",
        Shape::Text,
        "",
        "the Python interpreter to make environments with; python3 from PATH if not set",
    ),
    daemon(
        "token",
        Shape::Text,
        "",
        "bearer token that HTTP requests must carry; needed to listen beyond loopback",
    ),
    daemon("hosts", Shape::List, "", "host names that requests may be addressed to, beside localhost"),
    daemon("origins", Shape::List, "", "web origins whose pages may call functions"),
    daemon("dev", Shape::Flag, "false", "development: tracebacks in error answers"),
    daemon(
        "log",
        Shape::Text,
        "info",
        "how much is logged: error, warn, info, debug, trace, or a tracing filter",
    ),
    daemon("log_format", Shape::Text, "text", "text, or json for a line of JSON per event"),
    daemon(
        "attached",
        Shape::List,
        "",
        "modules that a developer's process attaches (`python -m bourse run` sets it): the daemon starts no Python module, and is ready once these are there",
    ),
    daemon(
        "worker_tcp",
        Shape::Address,
        "",
        "loopback address at which workers and clients may connect by tcp, beside the socket file",
    ),
    daemon(
        "listen",
        Shape::Address,
        "",
        "address that other nodes connect to, such as 0.0.0.0:7071; port 0 picks a free one; off if not set",
    ),
    daemon("join", Shape::List, "", "nodes of the grid to connect to first, KEY@HOST:PORT"),
    daemon(
        "grid",
        Shape::Text,
        "",
        "the grid's name: on the machine and by multicast, only nodes of the same name find each other",
    ),
    daemon(
        "discover",
        Shape::List,
        "",
        "where other nodes are looked for: machine (this user's daemons on this machine), multicast (the networks that this machine is on), dns:NAME (its SRV records), dns:NAME:PORT (its addresses)",
    ),
    daemon(
        "resolver",
        Shape::Address,
        "",
        "address of the DNS server that is asked for other nodes, such as 10.0.0.2:53; those of /etc/resolv.conf if not set",
    ),
    daemon(
        "multicast",
        Shape::Text,
        "239.192.70.71:7071",
        "GROUP:PORT at which nodes that look for others by multicast say that they are there",
    ),
    daemon(
        "allow",
        Shape::List,
        "",
        "public keys of the nodes that this one speaks with, beside those in the file `allowed` in the data folder",
    ),
    daemon(
        "advertise",
        Shape::Text,
        "",
        "HOST:PORT at which other nodes reach this one, if that is not `listen` itself (its machine's name, if that is 0.0.0.0)",
    ),
    daemon(
        "domain",
        Shape::Text,
        "",
        "what fails together with this node, such as a rack or a zone; its machine if not set",
    ),
    daemon(
        "sell",
        Shape::Count,
        "",
        "most slots of this node that others may use at once; all of them if not set",
    ),
    daemon(
        "labels",
        Shape::List,
        "",
        "what this node is, such as gpu or eu: what is deployed can ask for nodes that have a label",
    ),
    live(
        "on_shortage",
        Shape::Text,
        "",
        "module.function that is called when calls wait for capacity that no node has, such as one that starts machines",
    ),
    live("shortage_after", Shape::Duration, "5s", "how long a call waits before on_shortage is called"),
    daemon(
        "ipc",
        Shape::Flag,
        "true",
        "whether nodes that this user runs on this machine are spoken with over Unix sockets, where they have them, instead of tcp",
    ),
    daemon("deploys", Shape::Flag, "true", "whether bundles can be deployed to this node"),
    daemon(
        "smtp",
        Shape::Address,
        "",
        "address that takes mail for functions, such as 127.0.0.1:7025; port 0 picks a free one; off if not set",
    ),
    daemon(
        "smtp_open",
        Shape::Flag,
        "false",
        "mail may come from other machines: whoever reaches the port wakes functions; needed to take mail beyond loopback",
    ),
    daemon("smtp_bytes_max", Shape::Size, "10MiB", "largest mail"),
    daemon(
        "smtp_cert",
        Shape::Text,
        "",
        "file with the certificate that STARTTLS shows, and its chain, in PEM",
    ),
    daemon("smtp_key", Shape::Text, "", "file with the key of that certificate, in PEM"),
    live(
        "running",
        Shape::Count,
        "",
        "instances that run a call at the same time, at most; 2 per core if not set",
    ),
    live(
        "instances",
        Shape::Count,
        "",
        "living instances, idle ones included, at most; 16 per core if not set",
    ),
    daemon("payload", Shape::Size, "16MiB", "largest request body, arguments and result"),
    live("depth", Shape::Count, "128", "how deep calls may be nested"),
    live(
        "ahead",
        Shape::Count,
        "8",
        "calls handed to an instance beyond the one it runs, at most; 0 turns it off",
    ),
    live("ping", Shape::Duration, "5s", "between two pings of an idle instance"),
    live("startup", Shape::Duration, "30s", "how long a module may take to load, and an instance to start"),
    live("drain", Shape::Duration, "30s", "how long calls in flight may take when the daemon stops"),
    live(
        "interrupt_grace",
        Shape::Duration,
        "1s",
        "how long a call has to end once its time is over, before its instance is killed",
    ),
    daemon(
        "calls_kept",
        Shape::Duration,
        "24h",
        "how long an ended durable call can be asked for, and an idempotency key holds",
    ),
    live(
        "webhook_secret",
        Shape::List,
        "",
        "what webhooks are signed with, `whsec_…`; several while they are rotated: each signs",
    ),
    live(
        "webhook_reach",
        Shape::Text,
        "private",
        "where webhooks may go: public (the internet), private (also loopback and private networks), all (also link-local addresses, where clouds keep their machines' credentials)",
    ),
    live(
        "mail_relay",
        Shape::Text,
        "",
        "the server that takes mails: smtp://HOST:PORT?tls=required or smtps://HOST",
    ),
    live("mail_from", Shape::Text, "", "the sender of mails whose call names none"),
    live("mail_user", Shape::Text, "", "name at the relay"),
    live("mail_password", Shape::Text, "", "password at the relay"),
    live("mail_password_file", Shape::Text, "", "file with the password at the relay"),
    module("instances_min", Shape::Count, "0", "instances that are kept even when idle"),
    module(
        "instances_max",
        Shape::Count,
        "",
        "instances of the module, at most; as many as may run if not set",
    ),
    module(
        "timeout",
        Shape::Duration,
        "60s",
        "how long a call may take, if neither caller nor function says",
    ),
    module("queue_wait", Shape::Duration, "10s", "how long a call may wait for an instance, if neither says"),
    module(
        "scale_after",
        Shape::Duration,
        "20ms",
        "another instance is started when calls wait longer than this",
    ),
    module("queue", Shape::Count, "10000", "calls that may wait"),
    module("blocked", Shape::Count, "64", "instances that may wait for nested calls"),
    module("idle", Shape::Duration, "5m", "an instance without work stops after this"),
];

/// Settings that are not shown.
pub(crate) const SECRETS: &[&str] = &["token", "webhook_secret", "mail_password"];

/// Tables of `bourse.toml` with settings of one thing: `relay` in `[mail]` is the setting `mail_relay`.
pub(crate) const THINGS: &[&str] = &["webhook", "mail"];

/// Settings of which zero would mean that nothing runs.
pub(crate) const ABOVE_ZERO: &[&str] = &[
    "running",
    "instances",
    "ping",
    "startup",
    "payload",
    "timeout",
    "queue",
    "instances_max",
    "smtp_bytes_max",
];

/// Variables that are no settings: where commands look for a daemon, what instances and `python -m bourse` are told.
const OTHER_VARIABLES: &[&str] = &[
    "BOURSE_URL",
    "BOURSE_BINARY",
    "BOURSE_MODULE",
    "BOURSE_ENDPOINT",
    "BOURSE_PROCESS",
    "BOURSE_SECRET_FD",
    "BOURSE_CONTROL_FD",
    "BOURSE_BLESS",
    "BOURSE_REFRESH",
];

/// How those begin that this project's own tests and benchmarks read.
const OTHER_PREFIXES: &[&str] = &["BOURSE_TEST_", "BOURSE_STORE_TEST_", "BOURSE_BENCH_", "BOURSE_SEED"];

/// What Kubernetes sets in each pod for a service whose name begins with "bourse".
const OF_SERVICES: &[&str] = &["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"];

/// Whether a `BOURSE_*` variable that is no setting may be there all the same.
pub(crate) fn is_other_variable(name: &str) -> bool {
    OTHER_VARIABLES.contains(&name)
        || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || OF_SERVICES.iter().any(|part| name.contains(part))
        || name.ends_with("_PORT")
}

/// Every variable that can be set by hand.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(Setting::variable).chain(["BOURSE_URL".to_owned()])
}

/// The setting of that name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

impl Setting {
    /// The table of one thing that it belongs to, and its name there.
    pub(crate) fn of_thing(&self) -> Option<(&'static str, &'static str)> {
        let of = |thing: &&'static str| {
            self.name.strip_prefix(thing)?.strip_prefix('_').map(|name| (*thing, name))
        };
        THINGS.iter().find_map(of)
    }

    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("BOURSE_{}", self.name.to_uppercase())
    }
}
