//! `driftlog-server erase`: takes content out of a running server for good, over HTTP.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value as Json;

use super::http::{Remote, answered, percent};
use super::table::{age, cell, lay_out, now_ms};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["log", "author", "list", "pending"]))]
pub(crate) struct Options {
    /// The running server: http://host:port.
    #[arg(long)]
    url: String,
    /// File with a token that has the right `admin` (`driftlog-server token --admin`).
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Erase everything in this log, or one record of it.
    #[arg(long)]
    log: Option<String>,
    /// The record: COLLECTION/ID.
    #[arg(long, requires = "log", value_name = "COLLECTION/ID")]
    record: Option<String>,
    /// Erase what this user did in every log, and who it was.
    #[arg(long, value_name = "USER")]
    author: Option<String>,
    /// List what was erased, and how far that is.
    #[arg(long)]
    list: bool,
    /// List the clients that were not seen since the last erase: they may still hold what was erased.
    #[arg(long)]
    pending: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Outcome {
    let token = options.token_file.as_ref().map(std::fs::read_to_string).transpose()?;
    let remote = Remote::new(&options.url, token.map(|token| token.trim().to_owned()))?;
    if options.list {
        return print_erasures(&answered(remote.request("GET", "/erasures")?)?);
    }
    if options.pending {
        return print_clients(&answered(remote.request("GET", "/erasures/clients")?)?);
    }
    let query = match (&options.log, &options.record, &options.author) {
        (Some(log), None, _) => format!("log={}", percent(log)),
        (Some(log), Some(record), _) => {
            let (collection, id) = record.split_once('/').ok_or("a record is named COLLECTION/ID")?;
            format!("log={}&collection={}&record={}", percent(log), percent(collection), percent(id))
        }
        (None, _, Some(author)) => format!("author={}", percent(author)),
        (None, _, None) => return Err("say what to erase".into()),
    };
    let erased = answered(remote.request("POST", &format!("/erasures?{query}"))?)?;
    println!("erased in {} logs; rows, snapshots and clients follow (see --list and --pending)", cell(&erased["logs"]));
    Ok(())
}

fn print_erasures(json: &Json) -> Outcome {
    let now = now_ms();
    let mut rows = vec![["log", "what", "ordered", "gone", "clients to come"].map(str::to_owned)];
    for erasure in json["erasures"].as_array().into_iter().flatten() {
        let what = &erasure["what"];
        let what = match (what["collection"].as_str(), what["record"].as_str(), what["authors"].as_array()) {
            (Some(collection), Some(record), _) => format!("{collection}/{record}"),
            (_, _, Some(authors)) => format!("{} authors", authors.len()),
            _ => "everything".to_owned(),
        };
        let done = &erasure["done_ms"];
        rows.push([
            cell(&erasure["log"]),
            what,
            age(now, &erasure["at_ms"]),
            if done.is_null() { "not yet".to_owned() } else { age(now, done) },
            cell(&erasure["clients_waiting"]),
        ]);
    }
    println!("{}", if rows.len() > 1 { lay_out(&rows) } else { "nothing was erased".to_owned() });
    Ok(())
}

fn print_clients(json: &Json) -> Outcome {
    let now = now_ms();
    let mut rows = vec![["connection", "user", "seen", "device"].map(str::to_owned)];
    for client in json["clients"].as_array().into_iter().flatten() {
        let [connection, user, device] = ["connection", "user", "device"].map(|key| cell(&client[key]));
        rows.push([connection, user, age(now, &client["seen_ms"]), device]);
    }
    println!("{}", if rows.len() > 1 { lay_out(&rows) } else { "every client was seen since".to_owned() });
    Ok(())
}
