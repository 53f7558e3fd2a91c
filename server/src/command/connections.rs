//! `driftlog-server connections`: of a directory, or of a running server over HTTP.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::http::{Remote, answered};
use super::table::{age, cell, lay_out, now_ms};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List every client that ever came: whose it is, whether it is active, and how far behind.
    List(List),
    /// Make one inactive: nothing is kept for it until it comes back. It is told to come back, and nothing is lost.
    Downgrade(Downgrade),
}

#[derive(Args)]
struct List {
    /// Directory of the data; also while a server works in it.
    #[arg(long, required_unless_present = "url", conflicts_with = "url")]
    data: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Server {
    /// A running server: http://host:port.
    #[arg(long)]
    url: Option<String>,
    /// File with a token that has the right `admin` (`driftlog-server token --admin`).
    #[arg(long, requires = "url")]
    token_file: Option<PathBuf>,
}

#[derive(Args)]
struct Downgrade {
    #[command(flatten)]
    server: Server,
    /// The number of the connection, as `list` shows it.
    connection: u64,
}

/// Runs the command.
pub(crate) fn run(options: Options) -> Outcome {
    match options.command {
        Command::List(list) => print_list(&list),
        Command::Downgrade(Downgrade { server, connection }) => {
            let remote = server.remote()?.ok_or("a running server must be named with --url")?;
            match remote.request("POST", &format!("/connections/{connection}/downgrade"))? {
                (404, _) => Err(format!("there is no connection {connection}").into()),
                (409, _) => Err(format!("connection {connection} is not active").into()),
                answer => answered(answer).map(|_| println!("connection {connection} is inactive")),
            }
        }
    }
}

fn print_list(list: &List) -> Outcome {
    let remote = list.server.remote()?;
    let (mut connections, mut after) = (Vec::new(), Some(0));
    while let Some(behind) = after {
        let page = match (&remote, &list.data) {
            (Some(remote), _) => answered(remote.request("GET", &format!("/connections?after={behind}"))?)?,
            (None, Some(directory)) => driftlog_server::connections(directory, behind)?,
            (None, None) => Json::Null,
        };
        connections.extend(page["connections"].as_array().into_iter().flatten().cloned());
        after = page["next"].as_u64();
    }
    if list.json {
        println!("{}", json!({ "connections": connections }));
    } else if connections.is_empty() {
        println!("no connections");
    } else {
        println!("{}", table(&connections, now_ms()));
    }
    Ok(())
}

fn table(connections: &[Json], now: u64) -> String {
    let heads = ["connection", "user", "state", "socket", "seen", "behind", "bytes", "oldest", "device"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(connections.iter().map(|connection| {
        let state = match connection["reason"].as_str() {
            Some(reason) => format!("inactive: {reason}"),
            None => cell(&connection["state"]),
        };
        let oldest = &connection["oldest_unsent_ms"];
        [
            cell(&connection["connection"]),
            cell(&connection["user"]),
            state,
            match connection["live"].as_bool() {
                Some(true) => "open".to_owned(),
                Some(false) => "-".to_owned(),
                None => "?".to_owned(),
            },
            age(now, &connection["seen_ms"]),
            cell(&connection["lag_entries"]),
            cell(&connection["lag_bytes"]),
            if oldest.is_null() { "-".to_owned() } else { age(now, oldest) },
            cell(&connection["device"]),
        ]
    }));
    lay_out(&rows)
}

impl Server {
    fn remote(&self) -> Outcome<Option<Remote>> {
        let Some(url) = &self.url else { return Ok(None) };
        let token = self.token_file.as_ref().map(std::fs::read_to_string).transpose()?;
        Ok(Some(Remote::new(url, token.map(|token| token.trim().to_owned()))?))
    }
}
