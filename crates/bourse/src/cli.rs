//! The command line.
//!
//! What every command does stands in its own help; here is which there are, and where they are carried out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::client::{self, Error};
use crate::config::{self, Config, Given};
use crate::daemon;

#[derive(Parser)]
#[command(
    name = "bourse",
    version,
    about = "A serverless grid in one binary: drop functions into a folder, and they are served.",
    after_help = "\
Commands find the daemon by themselves: the one that serves the current folder,
or the nearest folder above it. Another one is named with -C FOLDER, --data DIR
or --url URL (BOURSE_DATA, BOURSE_URL), its token with --token (BOURSE_TOKEN).

Exit status:
  0  done
  1  a call or command failed
  2  the command makes no sense
  3  no daemon was found, or none answers
  4  the connection broke: a call may have run, or not

Examples:
  bourse new shop && bourse up shop
  bourse call hello.hello name=Ada -C shop
  bourse logs -f -C shop"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a folder of functions
    Up(Up),
    /// Call a function
    Call(client::call::Call),
    /// Call a function once for each item of a list
    Map(client::map::Map),
    /// Show durable calls, and what became of them
    Calls(client::calls::Calls),
    /// Show dead letters, try them again, forget them
    Dead(client::calls::Dead),
    /// Publish a message to a queue or topic
    Publish(client::triggers::Publish),
    /// Show cron lines, queues and topics
    Triggers(client::triggers::Triggers),
    /// Show how many durable calls wait
    Queue(client::calls::Queue),
    /// Show modules and instances
    Ps(client::ps::Ps),
    /// Show the nodes of the grid that a daemon knows
    Nodes(client::market::Nodes),
    /// Show what is sold and bought
    Market(client::market::Market),
    /// Watch what a daemon and its grid are doing
    Top(client::top::Top),
    /// Show what the daemon and its functions said
    Logs(client::logs::Logs),
    /// Make a folder with an example that works
    New(client::new::New),
    /// Put modules on the nodes that are to serve them
    Deploy(client::deploy::Deploy),
    /// Show what is deployed, and how far each node is with it
    Deployments(client::deploy::List),
    /// Serve again what a deployment was before
    Rollback(client::deploy::One),
    /// Serve on all nodes what a deployment tries on some
    Promote(client::deploy::One),
    /// Take a deployment off all nodes
    Undeploy(client::deploy::One),
    /// Make this node's keys, for a grid of several nodes
    Init(client::init::Init),
    /// Make a ticket, with which another node joins the grid
    Ticket(client::members::Ticket),
    /// Join a grid with a ticket
    Join(client::members::Join),
    /// Sell on this grid what another one serves
    Bridge(crate::bridge::Bridge),
    /// Show who belongs to the grid
    Members(client::members::Members),
    /// Put a node's key on the grid's list
    Admit(client::members::Admit),
    /// Take a key off the grid's list
    Revoke(client::members::Revoke),
    /// Show settings, and where they come from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look after the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Try durable calls, or a grid of nodes, in a simulated world that goes wrong
    Sim(Sim),
    /// Print completions for a shell
    Completions(Completions),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Show every setting, its value, and where that comes from
    Show(client::settings::Show),
    /// Print the JSON schema of bourse.toml
    #[command(after_help = "\
Editors that know schemas (Even Better TOML, Taplo) check bourse.toml with it.
Its first line is then:
  #:schema ./bourse.schema.json

Example:
  bourse config schema > bourse.schema.json")]
    Schema {
        /// It is JSON anyway
        #[arg(long, hide = true)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Copy the store to a file, while it is in use or not
    Backup(client::backup::Backup),
    /// Show which store is the grid's, and which node keeps it
    Show(client::store::Show),
    /// Make this node's store the grid's
    Claim(client::store::Claim),
}

/// Tries durable calls in a simulated world: crashes, a failing disk, jumping clocks. Or the market of many nodes: a network that
/// loses, repeats and splits, nodes that crash, pause and lie. Or whole nodes with functions and a store under the same. Or measures
/// how the grid's traffic grows with it.
#[derive(Args)]
#[command(after_help = "\
A seed is a run: the same one, each time and everywhere. It needs no daemon.

Examples:
  bourse sim
  bourse sim --seeds 100000
  bourse sim --seed 17 | less
  bourse sim --grid
  bourse sim --grid --seed 17 | less
  bourse sim --machines --seeds 500
  bourse sim --machines 100 --seeds 1
  bourse sim --nodes 10000 --modules 1000 --report scale.html")]
struct Sim {
    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// Run this one only, and show all that happens
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run markets of many nodes instead of one node with a disk
    #[arg(long)]
    grid: bool,
    /// Run grids of whole nodes: of a few by chance, or of N
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0", conflicts_with = "grid", value_parser = clap::value_parser!(u16).range(0..=1000))]
    machines: Option<u16>,
    /// Measure grids up to so many nodes, without faults
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "grid", "machines"], value_parser = clap::value_parser!(u32).range(2..))]
    nodes: Option<u32>,
    /// How many modules those nodes sell and call
    #[arg(long, value_name = "N", requires = "nodes", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    modules: u32,
    /// How many seconds of each are measured
    #[arg(long, value_name = "S", requires = "nodes", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Write the curves as a page
    #[arg(long, value_name = "FILE", requires = "nodes")]
    report: Option<std::path::PathBuf>,
    /// Write a line of JSON
    #[arg(long)]
    json: bool,
}

impl Sim {
    fn run(&self) -> std::io::Result<bool> {
        let Self { seeds, seed, grid, machines, nodes, modules, seconds, report, json } = self;
        let (report, json) = (report.clone(), *json);
        if let Some(nodes) = *nodes {
            let (time, seed) = (std::time::Duration::from_secs(*seconds), seed.unwrap_or(1));
            let plan = bourse_sim::grid::scale::Plan { nodes, modules: *modules, time, seed };
            return bourse_sim::grid::report::scale(&bourse_sim::grid::report::Options {
                plan,
                report,
                json,
            });
        }
        let options = bourse_sim::cli::Options { seeds: *seeds, seed: *seed, json };
        match machines {
            Some(machines) => {
                let machines = (*machines > 1).then_some(usize::from(*machines));
                bourse_sim::machines::cli::simulate(&options, machines)
            }
            None if *grid => bourse_sim::grid::cli::simulate(&options),
            None => bourse_sim::cli::simulate(&options),
        }
    }
}

/// Prints completions for a shell.
#[derive(Args)]
#[command(after_help = "\
Examples:
  bourse completions bash > ~/.local/share/bash-completion/completions/bourse
  bourse completions zsh > ~/.zfunc/_bourse
  bourse completions fish > ~/.config/fish/completions/bourse.fish")]
struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Serves a folder of functions, until it is told to stop.
#[derive(Args)]
#[command(after_help = "\
Every .py file in the folder is a module, and every public function of it can be
called. Saving a file serves it at once. Ctrl-C lets the calls in flight finish;
a second one does not.

Examples:
  bourse up functions
  bourse up functions --dev --http 127.0.0.1:0 --ready-file /tmp/address
  bourse up functions --smtp 127.0.0.1:7025
  bourse up functions --listen 0.0.0.0:7071 --join KEY@alder:7071 --allow KEY
  bourse up functions --set idle=1m --set instances_max=4
  BOURSE_TOKEN=secret bourse up functions --http 0.0.0.0:80")]
struct Up {
    /// The folder
    folder: PathBuf,
    #[command(flatten)]
    settings: SettingFlags,
    /// When ready, write the HTTP address into this file, and in a second line that for mail
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Log a line of JSON per event; the same as --set log_format=json
    #[arg(long)]
    json: bool,
}

/// Flags that are settings of the daemon. Every other setting can be given with --set.
#[derive(Args)]
struct SettingFlags {
    /// Folder for the store, logs and token [default: .bourse in the folder served]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address that serves HTTP; port 0 picks a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Address that takes mail for functions, such as 127.0.0.1:7025; port 0 picks a free one [default: off]
    #[arg(long, value_name = "ADDR")]
    smtp: Option<String>,
    /// Address that other nodes connect to, such as 0.0.0.0:7071; port 0 picks a free one [default: off]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A node of the grid to connect to first; may be given several times. `bourse init` prints a node's key
    #[arg(long, value_name = "KEY@HOST:PORT")]
    join: Vec<String>,
    /// Where other nodes are looked for; may be given several times: machine, multicast, dns:NAME, dns:NAME:PORT
    #[arg(long, value_name = "SOURCE")]
    discover: Vec<String>,
    /// The grid's name: on the machine and by multicast, only nodes of the same name find each other
    #[arg(long, value_name = "NAME")]
    grid: Option<String>,
    /// Public key of a node that this one speaks with; may be given several times. Others stand in the file `allowed`
    /// in the data folder
    #[arg(long, value_name = "KEY")]
    allow: Vec<String>,
    /// Where state is kept: sqlite, memory, or grid (by another node) [default: sqlite]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// A file to which every change of the store is written, for checkers and post-mortems [default: off]
    #[arg(long, value_name = "FILE")]
    history: Option<String>,
    /// Bearer token that HTTP requests must carry; better given as BOURSE_TOKEN, which `ps` does not show
    #[arg(long)]
    token: Option<String>,
    /// The Python interpreter to make environments with
    #[arg(long, value_name = "PATH")]
    python: Option<String>,
    /// Development: tracebacks in error answers
    #[arg(long)]
    dev: bool,
    /// Any setting, as in bourse.toml; `bourse config show --about` lists them
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl SettingFlags {
    fn given(&self) -> anyhow::Result<Given> {
        let mut given = Given::new();
        for pair in &self.set {
            let (name, value) =
                pair.split_once('=').with_context(|| format!("--set {pair}: write it as NAME=VALUE"))?;
            given.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        let named = [
            ("data", &self.data),
            ("http", &self.http),
            ("smtp", &self.smtp),
            ("listen", &self.listen),
            ("grid", &self.grid),
            ("store", &self.store),
            ("history", &self.history),
            ("token", &self.token),
            ("python", &self.python),
        ];
        given.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
        for (name, values) in [("join", &self.join), ("discover", &self.discover), ("allow", &self.allow)] {
            if !values.is_empty() {
                given.insert(name.to_owned(), values.join(","));
            }
        }
        if self.dev {
            given.insert("dev".to_owned(), "true".to_owned());
        }
        Ok(given)
    }
}

/// Parses the command line and does what it says. Errors have been told when it returns.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(&cli.command) {
        Ok(exit) => ExitCode::from(exit),
        // Whoever read our output has seen enough.
        Err(error)
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            anstream::eprintln!("{style}error:{style:#} {error:#}");
            ExitCode::from(error.downcast_ref::<Error>().map_or(client::FAILED, Error::exit))
        }
    }
}

fn carry_out(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Up(up) => serve(up),
        Command::Call(call) => client::call::run(call),
        Command::Map(map) => client::map::run(map),
        Command::Calls(calls) => client::calls::calls(calls),
        Command::Dead(dead) => client::calls::dead(dead),
        Command::Publish(publish) => client::triggers::publish(publish),
        Command::Triggers(triggers) => client::triggers::triggers(triggers),
        Command::Queue(queue) => client::calls::queue(queue),
        Command::Ps(ps) => client::ps::run(ps),
        Command::Nodes(nodes) => client::market::nodes(nodes),
        Command::Market(market) => client::market::market(market),
        Command::Top(top) => client::top::run(top),
        Command::Logs(logs) => client::logs::run(logs),
        Command::New(new) => client::new::run(new),
        Command::Deploy(deploy) => client::deploy::deploy(deploy),
        Command::Deployments(list) => client::deploy::list(list),
        Command::Rollback(one) => client::deploy::rollback(one),
        Command::Promote(one) => client::deploy::promote(one),
        Command::Undeploy(one) => client::deploy::undeploy(one),
        Command::Init(init) => client::init::run(init),
        Command::Ticket(ticket) => client::members::ticket(ticket),
        Command::Join(join) => client::members::join(join),
        Command::Bridge(bridge) => crate::bridge::bridge(bridge),
        Command::Members(members) => client::members::members(members),
        Command::Admit(admit) => client::members::admit(admit),
        Command::Revoke(revoke) => client::members::revoke(revoke),
        Command::Config(ConfigCommand::Show(show)) => client::settings::show(show),
        Command::Config(ConfigCommand::Schema { .. }) => Ok(client::settings::print_schema()?),
        Command::Store(StoreCommand::Backup(backup)) => client::backup::run(backup),
        Command::Store(StoreCommand::Show(show)) => client::store::show(show),
        Command::Store(StoreCommand::Claim(claim)) => client::store::claim(claim),
        Command::Sim(sim) => Ok(if sim.run()? { client::OK } else { client::FAILED }),
        Command::Completions(Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "bourse", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(client::OK)
        }
    }
}

fn serve(up: &Up) -> anyhow::Result<u8> {
    let mut given = up.settings.given()?;
    if up.json {
        given.insert("log_format".to_owned(), "json".to_owned());
    }
    let config = resolve(&up.folder, &given)?;
    let data = config.data();
    daemon::run(config, up.ready_file.as_deref()).map_err(|error| taken(&data, error))?;
    Ok(client::OK)
}

/// A store that is in use is most often that of a daemon which serves the folder already: where it is helps more.
fn taken(data: &Path, error: anyhow::Error) -> anyhow::Error {
    use bourse_store::sqlite::OpenError;
    match (error.downcast_ref::<OpenError>(), client::serving(data)) {
        (Some(OpenError::Locked { .. }), Ok(contact)) => anyhow::anyhow!(
            "{} is served already, by process {} at {}\n  hint: what is saved there is served at once; to start anew stop that one \
             first, or give this one a data folder of its own (--data)",
            contact.folder.display(),
            contact.pid,
            contact.http
        ),
        _ => error,
    }
}

fn resolve(folder: &Path, given: &Given) -> anyhow::Result<Config> {
    let folder = folder.canonicalize().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!(
                "the folder {} does not exist\n  hint: make one with an example in it: bourse new {0}",
                folder.display()
            )
        }
        _ => anyhow::anyhow!("the folder {} cannot be entered: {e}", folder.display()),
    })?;
    if !folder.is_dir() {
        anyhow::bail!(
            "{} is not a folder\n  hint: name the folder that holds it: every .py file in it is served",
            folder.display()
        );
    }
    Ok(Config::resolve(&folder, given, config::variables())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_a_terminal() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
