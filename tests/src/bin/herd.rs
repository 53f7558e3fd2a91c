//! `herd [CLIENTS]`: so many clients (2,000) come to one server at once on real sockets, and how it went.

use driftlog_server::{Access, Config, serve};
use driftlog_tests::herd::herd;
use driftlog_tests::peer::Peer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Entries of the log that everybody reads.
const ENTRIES: u64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clients = std::env::args().nth(1).map_or(Ok(2_000), |count| count.parse::<usize>())?;
    let directory = tempfile::TempDir::new()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = listener.local_addr()?.to_string();
    let mut config = Config::new(directory.path(), Access::Development);
    // Slower than they come here, where each connect is slow.
    (config.connections.welcomes_per_second, config.connections.welcomes_burst) = (150, 100);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, config, async { drop(stopped.await) }));
    let mut writer = Peer::new("writer");
    let (mut socket, _) = writer.open_to_push(&url).await;
    let entries: Vec<_> = (0..ENTRIES).map(|at| writer.act(Peer::insert(&format!("todo {at}")))).collect();
    socket.send(&writer.push(&entries)).await;
    socket.ack().await;
    let came = herd(&url, clients, ENTRIES).await;
    println!(
        "clients={clients} caught_up={} turned_away={} told_again={} first_ms={} last_ms={}",
        came.caught_up,
        came.turned_away,
        came.told_again,
        came.first.as_millis(),
        came.last.as_millis()
    );
    drop((socket, stop));
    Ok(server.await??)
}
