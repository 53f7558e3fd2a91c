//! The `driftlog-server` binary: command line, signals, and nothing else.

mod command;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use driftlog_core::rich::inspect;
use driftlog_server::{
    Access, Claims, Config, ConnectionBounds, DeadLetterBounds, Gate, GateWorkers, LogClaim, ROOM_BYTES, Retention,
    RetentionRule, Right, Rules, Secret, WaitBounds, duration, gate_worker, serve_all, token,
};
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(name = "driftlog-server", version, about = "The Driftlog sync server.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the protocol at /sync, snapshots at /logs/{log}/snapshot, /dead-letters and /health.
    Serve(Serve),
    /// Print a token for a user.
    Token(Token),
    /// Read everything that a data directory holds and tell what is damaged; also beside a running server.
    Verify(command::verify::Options),
    /// What was refused or could not be read: list, show, redrive, discard, export.
    DeadLetters(command::dead_letters::Options),
    /// Who is connected, and how far behind: list, downgrade.
    Connections(command::connections::Options),
    /// Take a record, a log or what a user did out for good, here and on every client.
    Erase(command::erase::Options),
    /// Read rich changes for a server that runs this program again; not for people.
    #[command(hide = true)]
    GateWorker {
        /// Bytes of memory that it may take.
        #[arg(long)]
        memory_bytes: u64,
    },
}

#[derive(Args)]
struct Serve {
    /// Directory of the data; made if it is missing.
    #[arg(long)]
    data: PathBuf,
    /// Address to listen on; may stand several times. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: Vec<SocketAddr>,
    /// File with the secret that tokens are signed with.
    #[arg(long, conflicts_with = "dev")]
    secret_file: Option<PathBuf>,
    /// No authentication, on loopback only. The token `dev:NAME` names the user; without one it is `dev`.
    #[arg(long)]
    dev: bool,
    /// File with rules for entries, in JSON; what they refuse becomes a dead letter. Without it everything is allowed.
    #[arg(long)]
    rules: Option<PathBuf>,
    /// What is kept of the entries of these logs behind their snapshots: PATTERN=all, PATTERN=age:90d,
    /// PATTERN=size:BYTES or PATTERN=last:COUNT. May stand several times; the first pattern that fits a log counts, and
    /// 90 days are kept where none does.
    #[arg(long, value_name = "PATTERN=POLICY")]
    retention: Vec<RetentionRule>,
    /// How old an entry is, at most, when it is in a backup that this server could be put back to: the time between two
    /// backups, and what one takes. Devices keep their accepted actions until then, and offer them again to a server that
    /// was put back. Where nothing is said they go by age and size.
    #[arg(long, value_parser = duration)]
    backed_up_after: Option<Duration>,
    /// How long edits of a text that were made before it began anew are translated; later ones their device makes again.
    #[arg(long, default_value = "7d", value_parser = duration)]
    text_grace: Duration,
    /// The ledger of erases, `erased.jsonl` in the data directory where nothing is said. It is read at each start, so that
    /// data put back from a backup is erased again: keep it apart from the backups.
    #[arg(long)]
    erase_ledger: Option<PathBuf>,
    /// Dead letters kept of one log; beyond it the oldest go, first those that their author keeps too.
    #[arg(long, default_value_t = DeadLetterBounds::default().count_max)]
    dead_letters_max: u64,
    /// Bytes of dead letters kept of one log.
    #[arg(long, default_value_t = DeadLetterBounds::default().bytes_max)]
    dead_letters_bytes_max: u64,
    /// /health is degraded above so many dead letters that nobody has dealt with …
    #[arg(long, default_value_t = DeadLetterBounds::default().degraded_count)]
    dead_letters_degraded: u64,
    /// … or when the oldest is older: a number with s, m, h or d.
    #[arg(long, default_value = "7d", value_parser = duration)]
    dead_letters_degraded_age: Duration,
    /// Bytes of pushes that may wait for their verdict, of all sessions together. As it fills, writers slow down.
    #[arg(long, default_value_t = ROOM_BYTES)]
    room_bytes: u64,
    /// /health is degraded when a push has waited longer for a gate worker …
    #[arg(long, default_value = "1m", value_parser = duration)]
    gate_degraded_age: Duration,
    /// … or when a policy has held one longer.
    #[arg(long, default_value = "1h", value_parser = duration)]
    held_degraded_age: Duration,
    /// A connection without a socket becomes inactive when it was not heard of for so long …
    #[arg(long, default_value = "30d", value_parser = duration)]
    connections_idle: Duration,
    /// … or when it is so many entries behind.
    #[arg(long, default_value_t = ConnectionBounds::default().lag_entries_max)]
    connections_lag_entries: u64,
    /// Active connections of one user; beyond it those become inactive that do least.
    #[arg(long, default_value_t = ConnectionBounds::default().active_of_user_max)]
    connections_of_user: usize,
    /// Active connections in all.
    #[arg(long, default_value_t = ConnectionBounds::default().active_max)]
    connections_active: usize,
    /// Connections with a socket. Beyond it a newcomer takes the place of one that does nothing, or comes again later.
    #[arg(long, default_value_t = ConnectionBounds::default().live_max)]
    connections_live: usize,
    /// Directory of static files to serve as well.
    #[arg(long = "static")]
    static_files: Option<PathBuf>,
    /// Processes that read rich changes (texts edited together) before they reach the log, besides one for authors
    /// who brought one down. 0 reads them in this process, where nothing bounds the time and memory they may take.
    #[arg(long, default_value_t = 2)]
    gate_workers: usize,
}

/// Memory of one gate worker. The largest push takes a few dozen megabytes; the program itself counts as well.
const GATE_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Args)]
struct Token {
    /// File with the secret.
    #[arg(long)]
    secret_file: PathBuf,
    /// Make the secret file if it is missing.
    #[arg(long)]
    create: bool,
    /// The user.
    #[arg(long)]
    sub: String,
    /// Logs that --read and --append without a pattern are for; `*` stands for any characters. May stand several times.
    #[arg(long, default_value = "*")]
    log: Vec<String>,
    /// Allow reading, of the logs of --log or of this pattern. Without --read and --append both are allowed.
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "")]
    read: Vec<String>,
    /// Allow appending, to the logs of --log or of this pattern.
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "")]
    append: Vec<String>,
    /// Allow administering the server, and nothing else unless it is asked for too.
    #[arg(long)]
    admin: bool,
    /// How long it is good for: a number with s, m, h or d.
    #[arg(long, default_value = "30d", value_parser = duration)]
    expires: Duration,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => run(options).map(|()| ExitCode::SUCCESS),
        Command::Token(options) => print_token(&options).map(|()| ExitCode::SUCCESS),
        Command::Verify(options) => command::verify::run(&options),
        Command::DeadLetters(options) => command::dead_letters::run(options).map(|()| ExitCode::SUCCESS),
        Command::Connections(options) => command::connections::run(options).map(|()| ExitCode::SUCCESS),
        Command::Erase(options) => command::erase::run(&options).map(|()| ExitCode::SUCCESS),
        Command::GateWorker { memory_bytes } => {
            gate_worker(memory_bytes, inspect).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("driftlog-server: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn run(options: Serve) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let access = match (&options.secret_file, options.dev) {
        (Some(path), _) => Access::Tokens(Secret::read(path)?),
        (None, true) => Access::Development,
        (None, false) => {
            return Err("nobody could come in: set --secret-file FILE (make one with `driftlog-server token \
                        --create --secret-file FILE --sub NAME`), or --dev for this machine only"
                .into());
        }
    };
    let mut config = Config::new(options.data, access);
    config.static_files = options.static_files;
    config.dead_letters = DeadLetterBounds {
        count_max: options.dead_letters_max,
        bytes_max: options.dead_letters_bytes_max,
        degraded_count: options.dead_letters_degraded,
        degraded_age: options.dead_letters_degraded_age,
    };
    if let Some(path) = &options.rules {
        config.policy = Arc::new(Rules::read(path)?);
    }
    config.connections = ConnectionBounds {
        idle: options.connections_idle,
        lag_entries_max: options.connections_lag_entries,
        active_of_user_max: options.connections_of_user,
        active_max: options.connections_active,
        live_max: options.connections_live,
        ..ConnectionBounds::default()
    };
    config.retention =
        options.retention.iter().fold(Retention::default(), |all, rule| all.with(&rule.pattern, rule.keep));
    config.backed_up_after = options.backed_up_after;
    config.rerooting.grace = options.text_grace;
    config.erase_ledger = options.erase_ledger;
    config.room_bytes = options.room_bytes;
    config.waits =
        WaitBounds { gate_degraded_age: options.gate_degraded_age, held_degraded_age: options.held_degraded_age };
    config.gate = gate(options.gate_workers)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut listeners = Vec::new();
        for address in options.listen {
            let listener =
                TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
            listeners.push(listener);
        }
        for listener in &listeners {
            println!("listening on http://{}", listener.local_addr()?);
        }
        Ok(serve_all(listeners, config, stopped()).await?)
    })
}

/// The gate runs this program again.
fn gate(workers: usize) -> Result<Gate, std::io::Error> {
    if workers == 0 {
        return Ok(Gate::InProcess);
    }
    let arguments = ["gate-worker".into(), "--memory-bytes".into(), GATE_MEMORY_BYTES.to_string().into()];
    Ok(Gate::Workers(GateWorkers { count: workers, ..GateWorkers::new(std::env::current_exe()?, arguments) }))
}

/// Completes at the first signal to end.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}

fn print_token(options: &Token) -> Outcome {
    let missing = !options.secret_file.exists();
    let secret = match options.create && missing {
        true => Secret::create(&options.secret_file)?,
        false => Secret::read(&options.secret_file)?,
    };
    let logs = claims(options);
    let exp = (SystemTime::now() + options.expires).duration_since(UNIX_EPOCH)?.as_secs();
    println!("{}", token(&secret, &Claims { sub: options.sub.clone(), logs, exp }));
    Ok(())
}

/// One claim for each pattern and right that was asked for.
fn claims(options: &Token) -> Vec<LogClaim> {
    let everything = options.read.is_empty() && options.append.is_empty() && !options.admin;
    let asked = [(Right::Read, &options.read), (Right::Append, &options.append)];
    let mut logs = Vec::new();
    if options.admin {
        logs.push(LogClaim { pattern: "*".to_owned(), rights: vec![Right::Admin] });
    }
    for (right, patterns) in asked {
        let of_log = if everything { &[String::new()][..] } else { patterns.as_slice() };
        for pattern in of_log {
            let patterns = if pattern.is_empty() { options.log.as_slice() } else { std::slice::from_ref(pattern) };
            logs.extend(patterns.iter().map(|pattern| LogClaim { pattern: pattern.clone(), rights: vec![right] }));
        }
    }
    logs
}
