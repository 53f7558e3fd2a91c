//! `driftlog-server dead-letters`: on a directory, or on a running server over HTTP.
//!
//! Reading a directory is fine while a server works in it. What changes something is the log writer's: for that the
//! server is stopped, or asked with `--url`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use driftlog_core::id::LogName;
use driftlog_server::{Access, Config, DeadLetters, Include, LetterError, Listing, Rules, StoreError};
use serde_json::{Value as Json, json};

use super::http::{Remote, answered, percent};
use super::table::{age, cell, lay_out, now_ms};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List what was refused or could not be read and waits for somebody.
    List(List),
    /// Show one whole, with what it would do.
    Show(One),
    /// Let an entry in again, as one of the log itself that replaces it; happens once, however often it is said.
    Redrive(One),
    /// Give one up for good.
    Discard(One),
    /// Print all whole, one JSON object a line.
    Export(List),
}

#[derive(Args)]
struct At {
    /// Directory of the data. To redrive and discard there, stop its server first.
    #[arg(long, required_unless_present = "url", conflicts_with = "url")]
    data: Option<PathBuf>,
    /// A running server instead: http://host:port.
    #[arg(long)]
    url: Option<String>,
    /// File with a token that has the right `admin` (`driftlog-server token --admin`).
    #[arg(long, requires = "url")]
    token_file: Option<PathBuf>,
    /// The rules file of the server whose directory this is; a redrive goes by them.
    #[arg(long, requires = "data")]
    rules: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    at: At,
    /// Of this log only.
    #[arg(long)]
    log: Option<LogArgument>,
    /// Those too that were redriven or replaced by their author.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct One {
    #[command(flatten)]
    at: At,
    /// The number of the letter, as `list` shows it.
    letter: u64,
}

#[derive(Clone)]
struct LogArgument(LogName);

impl std::str::FromStr for LogArgument {
    type Err = driftlog_core::id::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        LogName::new(text).map(Self)
    }
}

/// Runs the command.
pub(crate) fn run(options: Options) -> Outcome {
    match options.command {
        Command::List(list) => print_list(&list),
        Command::Export(list) => each(&list, Include::Yes, |letter| println!("{letter}")),
        Command::Show(one) => print(&one.at, &one.at.show(one.letter)?, describe),
        Command::Redrive(one) => {
            print(&one.at, &one.at.redrive(one.letter)?, |answer| match answer["before"] == true {
                true => format!("letter {} was re-issued before, at offset {}", answer["letter"], answer["offset"]),
                false => format!("letter {} is in its log now, at offset {}", answer["letter"], answer["offset"]),
            })
        }
        Command::Discard(one) => {
            one.at.discard(one.letter)?;
            print(&one.at, &json!({ "letter": one.letter }), |_| format!("letter {} is gone", one.letter))
        }
    }
}

fn print(at: &At, answer: &Json, text: impl FnOnce(&Json) -> String) -> Outcome {
    println!("{}", if at.json { answer.to_string() } else { text(answer) });
    Ok(())
}

/// Calls for each letter, page by page.
fn each(list: &List, content: Include, mut visit: impl FnMut(&Json)) -> Outcome {
    let mut after = Some(0);
    while let Some(behind) = after {
        let page = list.at.list(list, behind, content)?;
        page["letters"].as_array().into_iter().flatten().for_each(&mut visit);
        after = page["next"].as_u64();
    }
    Ok(())
}

fn print_list(list: &List) -> Outcome {
    let mut letters = Vec::new();
    each(list, Include::No, |letter| letters.push(letter.clone()))?;
    if list.at.json {
        println!("{}", json!({ "letters": letters }));
    } else if letters.is_empty() {
        println!("no dead letters");
    } else {
        println!("{}", table(&letters, now_ms()));
    }
    Ok(())
}

fn table(letters: &[Json], now: u64) -> String {
    let mut rows = vec![["letter", "log", "action", "user", "code", "age", "tries", "reason"].map(str::to_owned)];
    rows.extend(letters.iter().map(|letter| {
        let code = match letter["replaced_at"].as_u64() {
            Some(offset) => format!("re-issued at {offset}"),
            None => cell(&letter["code"]),
        };
        [
            cell(&letter["letter"]),
            cell(&letter["log"]),
            cell(&letter["action"]),
            if letter["user"].is_null() { cell(&letter["source"]) } else { cell(&letter["user"]) },
            code,
            age(now, &letter["first_ms"]),
            cell(&letter["attempts"]),
            cell(&letter["reason"]),
        ]
    }));
    lay_out(&rows)
}

fn describe(letter: &Json) -> String {
    let now = now_ms();
    let mut lines = vec![format!("letter {}: {} {}", letter["letter"], letter["number"], cell(&letter["code"]))];
    let keys = ["reason", "log", "entry_id", "user", "source", "action", "attempts", "bytes", "replaced_at"];
    lines.extend(
        keys.iter().filter(|key| !letter[**key].is_null()).map(|key| format!("  {key:<12} {}", cell(&letter[*key]))),
    );
    lines.extend(
        [("first", "first_ms"), ("last", "last_ms")]
            .map(|(word, key)| format!("  {word:<12} {} ago", age(now, &letter[key]))),
    );
    if !letter["args"].is_null() {
        lines.push(format!("  {:<12} {}", "args", letter["args"]));
    }
    lines.extend(letter["ops"].as_array().into_iter().flatten().map(|op| format!("  {:<12} {op}", "does")));
    lines.join("\n")
}

impl At {
    fn list(&self, list: &List, after: u64, content: Include) -> Outcome<Json> {
        let log = list.log.as_ref().map(|log| &log.0);
        let done = if list.all { Include::Yes } else { Include::No };
        match self.remote()? {
            Some(remote) => {
                let yes = |include| include == Include::Yes;
                let of = log.map(|log| format!("&log={}", percent(log.as_str()))).unwrap_or_default();
                let path = format!("/dead-letters?after={after}&done={}&content={}{of}", yes(done), yes(content));
                answered(remote.request("GET", &path)?)
            }
            None => {
                Ok(DeadLetters::read(self.directory())?.list(&Listing { log: log.cloned(), after, done, content })?)
            }
        }
    }

    fn show(&self, letter: u64) -> Outcome<Json> {
        match self.remote()? {
            Some(remote) => answered(remote.request("GET", &format!("/dead-letters/{letter}"))?),
            None => Ok(DeadLetters::read(self.directory())?.show(letter)?.ok_or(LetterError::Missing(letter))?),
        }
    }

    fn redrive(&self, letter: u64) -> Outcome<Json> {
        match self.remote()? {
            Some(remote) => answered(remote.request("POST", &format!("/dead-letters/{letter}/redrive"))?),
            None => self.work(|letters, runtime| runtime.block_on(letters.redrive(letter))),
        }
    }

    fn discard(&self, letter: u64) -> Outcome {
        match self.remote()? {
            Some(remote) => answered(remote.request("DELETE", &format!("/dead-letters/{letter}"))?).map(drop),
            None => self.work(|letters, runtime| runtime.block_on(letters.discard(letter))),
        }
    }

    /// Works on the directory as its server would.
    fn work<T>(
        &self,
        work: impl FnOnce(&DeadLetters, &tokio::runtime::Runtime) -> Result<T, LetterError>,
    ) -> Outcome<T> {
        let mut config = Config::new(self.directory(), Access::Development);
        if let Some(path) = &self.rules {
            config.policy = Arc::new(Rules::read(path)?);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        match DeadLetters::work(&config, |letters| work(letters, &runtime)) {
            Ok(answer) => Ok(answer?),
            Err(error @ StoreError::InUse { .. }) => Err(format!("{error}: stop it, or ask it with --url").into()),
            Err(error) => Err(error.into()),
        }
    }

    fn directory(&self) -> &std::path::Path {
        self.data.as_deref().unwrap_or(std::path::Path::new("."))
    }

    fn remote(&self) -> Outcome<Option<Remote>> {
        let Some(url) = &self.url else { return Ok(None) };
        let token = self.token_file.as_ref().map(std::fs::read_to_string).transpose()?;
        Ok(Some(Remote::new(url, token.map(|token| token.trim().to_owned()))?))
    }
}
