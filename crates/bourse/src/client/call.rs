//! `bourse call`: one call, its result on stdout.

use std::io::{self, IsTerminal as _, Write as _};

use http::Method;
use serde_json::Value;

use super::http::{Answer, Ask, Daemon, block_on, encoded};
use super::{Error, FAILED, OK, Reach, arguments, json};

/// Calls a function, and prints its result.
#[derive(clap::Args)]
#[command(after_help = "\
An ARGUMENT is one of:
  name=value  one argument. A value that is JSON counts as such: n=5, on=true,
              tags='[\"a\"]'. Anything else is text; text that looks like JSON
              is quoted: room='\"101\"'
  JSON        all arguments: '{\"name\": \"value\"}' by name, '[1, 2]' by position
  @FILE       the file, as it is, for the parameter `body`; if its name ends in
              .json and nothing stands beside it, all arguments. @- reads stdin.
              --content-type says what it is

A result that is JSON is laid out on a terminal, and printed as it came
elsewhere; bytes and text are printed as they are. Failures go to stderr.

Exit status:
  0  the call succeeded
  1  the call failed
  2  the command makes no sense
  3  no daemon was found, or none answers
  4  the connection broke: the call may have run, or not

Examples:
  bourse call shop.price item=tea amount=3
  bourse call shop.price '{\"item\": \"tea\", \"amount\": 3}' --timeout 5s
  bourse call photos.resize @cat.jpg > small.jpg
  bourse call pages.title @- --content-type text/html < index.html
  bourse call shop.price item=tea --json | jq .result
  bourse calls $(bourse call shop.order item=tea --async) --wait")]
pub(crate) struct Call {
    #[command(flatten)]
    target: Target,
    /// name=value… and @FILE, or one JSON text
    #[arg(value_name = "ARGUMENT")]
    arguments: Vec<String>,
    /// What @FILE is, such as application/json or text/html [default: by its name, or application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A second call of the function with this key, within a day, is the first one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the whole answer or problem as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// A function, and the terms on which it is called.
#[derive(clap::Args)]
pub(super) struct Target {
    /// The function, as module.function
    #[arg(value_name = "MODULE.FUNCTION")]
    function: String,
    /// How long the call may take, such as 5s or 200ms [default: the function's own limit]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// How long it may wait for an instance [default: the function's own limit]
    #[arg(long, value_name = "TIME")]
    queue_wait: Option<String>,
    /// Which version of the module, such as ^1.2 [default: any]
    #[arg(long, value_name = "REQUIREMENT")]
    version: Option<String>,
    /// Do not wait for the result: print the call's id once it is stored. It is run until it succeeds, or is a dead letter
    #[arg(long = "async")]
    asynchronous: bool,
    /// With --async: do not run it before this time is over, such as 30s or 2h
    #[arg(long, value_name = "TIME", requires = "asynchronous")]
    delay: Option<String>,
    /// How far it may travel from the node asked [default: as the function says]
    #[arg(long, value_parser = ["process", "machine", "network", "anywhere"])]
    horizon: Option<String>,
    /// After how long capacity elsewhere is asked for [default: as is set]
    #[arg(long, value_name = "TIME")]
    scale_after: Option<String>,
    /// If there is no instance: wait, be refused, or ask elsewhere at once
    #[arg(long, value_parser = ["queue", "reject", "remote"])]
    overflow: Option<String>,
}

impl Target {
    /// The function.
    fn name(&self) -> &str {
        &self.function
    }

    /// The path of its calls.
    pub(super) fn path(&self) -> Result<String, Error> {
        if !self
            .function
            .split_once('.')
            .is_some_and(|(module, function)| !module.is_empty() && !function.is_empty())
        {
            return Err(Error::Usage(format!(
                "{:?} is not the name of a function\n  hint: write MODULE.FUNCTION; `bourse ps --functions` lists them",
                self.function
            )));
        }
        let mode = self.asynchronous.then(|| "async".to_owned());
        let terms = [
            ("timeout", &self.timeout),
            ("queue_wait", &self.queue_wait),
            ("version", &self.version),
            ("horizon", &self.horizon),
            ("scale_after", &self.scale_after),
            ("overflow", &self.overflow),
            ("mode", &mode),
            ("delay", &self.delay),
        ];
        let terms: Vec<String> = terms
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))))
            .collect();
        let question = if terms.is_empty() { "" } else { "?" };
        Ok(format!("/v1/call/{}{question}{}", encoded(&self.function), terms.join("&")))
    }
}

pub(crate) fn run(call: &Call) -> anyhow::Result<u8> {
    let path = call.target.path()?;
    let daemon = Daemon::new(call.reach.find()?)?;
    let content_type = call.content_type.as_deref();
    let body = match arguments::file_beside(&call.arguments) {
        None => arguments::body(&call.arguments, content_type)?,
        Some(file) => {
            let modules = block_on(daemon.json("/v1/modules"))??;
            let takes_text = takes_text(&modules, call.target.name());
            arguments::body_beside(&call.arguments, file, content_type, takes_text)?
        }
    };
    let ask = Ask {
        method: Method::POST,
        path,
        content_type: Some(body.content_type),
        idempotency_key: call.idempotency_key.clone(),
        body: body.bytes,
    };
    let answer = block_on(daemon.ask(ask))??;
    if call.json {
        return whole(&answer);
    }
    if let Some(problem) = json::problem(&answer) {
        let mut text = problem.text();
        // The most likely slip with name=value.
        if text.contains("must be str, not ") && call.arguments.iter().any(|a| a.contains('=')) {
            text.push_str(
                "\n  hint: values that look like JSON count as such; text among them is quoted: name='\"5\"'",
            );
        }
        return Err(Error::Refused(text).into());
    }
    if let (202, true, Some(id)) = (answer.status, call.target.asynchronous, &answer.call) {
        writeln!(io::stdout(), "{id}")?;
        return Ok(OK);
    }
    show(&answer)?;
    if answer.status >= 400 {
        return Err(Error::Refused(format!("the function answered with status {}", answer.status)).into());
    }
    Ok(OK)
}

/// Whether the function's parameter for a file is text.
fn takes_text(modules: &Value, function: &str) -> bool {
    let named = |items: &Value, name: &str| {
        items.as_array().into_iter().flatten().find(|item| item["name"] == name).cloned().unwrap_or_default()
    };
    let (module, function) = function.split_once('.').unwrap_or_default();
    let function = named(&named(modules, module)["functions"], function);
    named(&function["parameters"], arguments::BODY)["type"] == "str"
}

/// The answer as one JSON object.
fn whole(answer: &Answer) -> anyhow::Result<u8> {
    let (text, exit) = if json::problem(answer).is_some() {
        (String::from_utf8_lossy(&answer.body).into_owned(), FAILED)
    } else {
        (object(answer), if answer.status >= 400 { FAILED } else { OK })
    };
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { json::pretty(&text) } else { text };
    writeln!(out, "{text}")?;
    Ok(exit)
}

/// `{status, content_type, call_id, result}`. A result that is neither JSON nor text is an array of bytes.
fn object(answer: &Answer) -> String {
    let call = answer.call.as_deref().map_or("null".to_owned(), json::quoted);
    format!(
        r#"{{"status":{},"content_type":{},"call_id":{call},"result":{}}}"#,
        answer.status,
        json::quoted(&answer.content_type),
        result(answer),
    )
}

/// The result as JSON.
pub(super) fn result(answer: &Answer) -> String {
    match std::str::from_utf8(&answer.body) {
        Ok("") => "null".to_owned(),
        Ok(text) if is_json(answer) && json::is_json(text) => text.to_owned(),
        Ok(text) => json::quoted(text),
        Err(_) => serde_json::Value::from(answer.body.to_vec()).to_string(),
    }
}

fn is_json(answer: &Answer) -> bool {
    answer.content_type == "application/json" || answer.content_type.ends_with("+json")
}

/// The result as it came; laid out if a person reads it.
fn show(answer: &Answer) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let text = std::str::from_utf8(&answer.body);
    match text {
        Ok(text) if is_json(answer) && out.is_terminal() => writeln!(out, "{}", json::pretty(text))?,
        Ok(text) if is_json(answer) => writeln!(out, "{}", text.trim_end())?,
        Ok(text) if out.is_terminal() => writeln!(out, "{}", shown(text))?,
        Err(_) if out.is_terminal() => {
            let bytes = answer.body.len();
            let kind = if answer.content_type.is_empty() { "no type" } else { &answer.content_type };
            anstream::eprintln!(
                "{bytes} bytes of {kind}: not shown on a terminal; send them to a file with > FILE"
            );
        }
        _ => out.write_all(&answer.body)?,
    }
    out.flush()?;
    Ok(())
}

/// Text without what would control the terminal.
fn shown(text: &str) -> String {
    text.trim_end_matches('\n').chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}
