//! HTTP: the sync socket, health, snapshots as JSON, dead letters, and static files.

mod connections;
mod dead_letters;
mod erasures;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use driftlog_core::id::LogName;
use driftlog_core::limits;
use driftlog_core::protocol::Code;
use driftlog_core::session::server::Refusal;
use driftlog_core::time::WallMs;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Access;
use crate::room::Load;
use crate::store::StoreError;
use crate::{Shared, Shell, connection, materialize, snapshot, static_files};

/// A socket costs about 8 KiB with these, and 128 KiB with the defaults.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024;
/// A message this much beyond the frame cap still gets its numbered answer.
const OVERSIZE_BYTES: usize = 64 * 1024;

/// All routes.
pub(crate) fn router(shell: Arc<Shell>) -> Router {
    let router = Router::new()
        .route("/sync", get(sync))
        .route("/health", get(health))
        .route("/logs/{log}/snapshot", get(log_snapshot))
        .merge(connections::routes())
        .merge(dead_letters::routes())
        .merge(erasures::routes());
    match &shell.shared.config.static_files {
        Some(root) => router.fallback_service(static_files::service(root.clone())),
        None => router,
    }
    .with_state(shell)
}

/// Accepts on one listener until the server ends.
pub(crate) async fn run(listener: TcpListener, router: Router, mut ending: watch::Receiver<bool>) {
    let listener = listener.tap_io(|socket| {
        // Small frames go at once; a failure costs latency only.
        let _ = socket.set_nodelay(true);
    });
    let ended = async move {
        let _ = ending.wait_for(|ending| *ending).await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
        tracing::error!(%error, "a listener failed");
    }
}

async fn sync(State(shell): State<Arc<Shell>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if matches!(shell.shared.config.access, Access::Development) && !is_local_origin(&headers) {
        return (StatusCode::FORBIDDEN, "development mode takes pages of this machine only").into_response();
    }
    if !shell.shared.connections.may_open() {
        let wait = shell.shared.connections.spread_ms().div_ceil(1_000).max(1).to_string();
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, wait)]).into_response();
    }
    upgrade
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(SOCKET_BUFFER_BYTES)
        .max_write_buffer_size(limits::FRAME_BYTES_MAX * 2)
        .max_message_size(limits::FRAME_BYTES_MAX + OVERSIZE_BYTES)
        .max_frame_size(limits::FRAME_BYTES_MAX + OVERSIZE_BYTES)
        .on_upgrade(move |socket| connection::run(socket, shell))
}

/// Without authentication a foreign page must not reach the server through its visitor's browser.
fn is_local_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Some((_, host)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]") || name.ends_with(".localhost")
}

/// `GET /health`: degraded is still healthy enough to serve; somebody should look.
async fn health(State(shell): State<Arc<Shell>>) -> Response {
    let shared = &shell.shared;
    let pool = Arc::clone(&shared.pool);
    let read = move || pool.read(|reads| Ok((reads.counts()?.0, reads.letters_open()?)));
    let (logs, (letters, oldest)) = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let bounds = shared.config.dead_letters;
    let age = oldest.map(|oldest| Duration::from_millis(shared.environment.now().saturating_sub(oldest)));
    let too_old = age.is_some_and(|age| age > bounds.degraded_age);
    let steady = shared.environment.steady();
    let since = |since: Option<WallMs>| since.map(|since| Duration::from_millis(steady.saturating_sub(since)));
    let ((held, held_since), (gate, gate_since)) = (shared.sessions.held(), shared.gate.waits());
    let (held_age, gate_age) = (since(held_since), since(gate_since));
    let waits = shared.config.waits;
    let waits_long = held_age.is_some_and(|age| age > waits.held_degraded_age)
        || gate_age.is_some_and(|age| age > waits.gate_degraded_age);
    let degraded = letters > bounds.degraded_count || too_old || waits_long;
    let connections = shared.connections.counts();
    let downgraded: serde_json::Map<_, _> =
        connections.downgraded.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect();
    let Load { bytes, bytes_max, bytes_peak, requests, waiting } = shared.room.load();
    Json(json!({
        "status": if degraded { "degraded" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": driftlog_core::protocol::VERSION,
        "sessions": shared.sessions.len(),
        "connections_active": connections.active,
        "connections_live": connections.live,
        "connections_downgraded": downgraded,
        "sessions_without_credit": waiting,
        "waiting_bytes": bytes,
        "waiting_bytes_max": bytes_max,
        "waiting_bytes_peak": bytes_peak,
        "waiting_requests": requests,
        "gate_waiting": gate,
        "gate_waiting_oldest_s": gate_age.map(|age| age.as_secs()),
        "held": held,
        "held_oldest_s": held_age.map(|age| age.as_secs()),
        "logs": logs,
        "dead_letters": letters,
        "dead_letters_oldest_s": age.map(|age| age.as_secs()),
        "dead_letters_dropped": shared.letters_dropped.load(Ordering::Relaxed),
    }))
    .into_response()
}

/// `GET /logs/{log}/snapshot`: the log's records as JSON, with the position they stand at.
async fn log_snapshot(State(shell): State<Arc<Shell>>, Path(log): Path<String>, headers: HeaderMap) -> Response {
    let shared = &shell.shared;
    let name = match LogName::new(&log) {
        Ok(name) => name,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let identity = match shared.config.access.identify(bearer(&headers), shared.environment.now()) {
        Ok(identity) => identity,
        Err(refusal) => return refused(StatusCode::UNAUTHORIZED, &refusal),
    };
    if !identity.grants.rights(&name).0 {
        let reason = format!("the token gives no right to read {name}");
        return refused(StatusCode::FORBIDDEN, &Refusal { code: Code::Forbidden, reason });
    }
    let pool = Arc::clone(&shared.pool);
    let read = tokio::task::spawn_blocking(move || {
        pool.read(|reads| {
            let Some(log) = reads.log(&name)? else { return Ok(None) };
            let folded = snapshot::fold(reads, &log)?;
            materialize::json(&folded.state).map(Some).map_err(|error| StoreError::corrupt("entries", error))
        })
    });
    match read.await {
        Ok(Ok(Some(json))) => Json(json).into_response(),
        Ok(Ok(None)) => (StatusCode::NOT_FOUND, Json(json!({ "reason": "no such log" }))).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Whether a request comes from somebody who administers this server; else what to answer. Without authentication, on
/// loopback, that is everybody but pages of other origins, which are turned away as at the socket.
// The error is an answer on its way out, made once.
#[allow(clippy::result_large_err)]
fn administers(shared: &Shared, headers: &HeaderMap) -> Result<(), Response> {
    let identity = shared.config.access.identify(bearer(headers), shared.environment.now());
    let identity = identity.map_err(|refusal| refused(StatusCode::UNAUTHORIZED, &refusal))?;
    let foreign = matches!(shared.config.access, Access::Development) && !is_local_origin(headers);
    if foreign || !identity.admin {
        let reason = "the token gives no right to administer this server".to_owned();
        return Err(refused(StatusCode::FORBIDDEN, &Refusal { code: Code::Forbidden, reason }));
    }
    Ok(())
}

fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    let body = json!({ "code": refusal.code.name(), "number": refusal.code.number(), "reason": refusal.reason });
    (status, Json(body)).into_response()
}

fn failed(error: &StoreError) -> Response {
    tracing::error!(%error, "a read failed");
    let refusal = Refusal { code: Code::StorageFailed, reason: "the store could not be read".to_owned() };
    refused(StatusCode::SERVICE_UNAVAILABLE, &refusal)
}
