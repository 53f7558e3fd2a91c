//! A server to test, in this process. The binary is `driftlog_tests::process`.

use driftlog_server::{Access, Config, Secret, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server in this process.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), driftlog_server::ServeError>>,
}

impl Server {
    /// A fresh server without authentication.
    pub(crate) async fn start() -> Self {
        Self::start_with(TempDir::new().expect("a directory"), |_| {}).await
    }

    /// A server with tokens.
    pub(crate) async fn start_with_tokens() -> Self {
        Self::start_with(TempDir::new().expect("a directory"), |config| config.access = Access::Tokens(secret())).await
    }

    /// A server over a directory that may hold something already.
    pub(crate) async fn start_with(directory: TempDir, configure: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config::new(directory.path(), Access::Development);
        configure(&mut config);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, config, async {
            let _ = stopped.await;
        }));
        Self { url: format!("{address}"), directory, stop: Some(stop), task }
    }

    /// Begins the shutdown without waiting for its end.
    pub(crate) fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops in good order; gives the data back.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.begin_stop();
        self.task.await.expect("no panic").expect("a good end");
        self.directory
    }

    /// `GET path`: status and body.
    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let (status, _, body) = self.get_with_head(path, token).await;
        (status, body)
    }

    /// `GET path`: status, head and body.
    pub(crate) async fn get_with_head(&self, path: &str, token: Option<&str>) -> (u16, String, String) {
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        self.ask("GET", path, &bearer).await
    }

    /// A request with more lines of head: status, head and body.
    pub(crate) async fn ask(&self, method: &str, path: &str, lines: &str) -> (u16, String, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(&self.url).await.expect("connects");
        let host = &self.url;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, head.to_owned(), body.to_owned())
    }
}

/// The secret of every server with tokens here.
pub(crate) fn secret() -> Secret {
    Secret::new([42; 32]).expect("long enough")
}
