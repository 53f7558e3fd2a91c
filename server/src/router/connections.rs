//! `/connections`: the operator's view of who is connected, and how far behind (docs/protocol.md, "HTTP").
//!
//! It asks for a token with the right `admin` for `*`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::{administers, failed};
use crate::Shell;
use crate::connections::listing;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    logs: bool,
}

#[derive(Deserialize)]
struct Away {
    away_ms: Option<u64>,
}

pub(super) fn routes() -> Router<Arc<Shell>> {
    Router::new().route("/connections", get(list)).route("/connections/{connection}/downgrade", post(downgrade))
}

async fn list(State(shell): State<Arc<Shell>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    if let Err(response) = administers(&shell.shared, &headers) {
        return response;
    }
    let shared = Arc::clone(&shell.shared);
    let read = move || {
        let Asked { after, logs } = asked;
        shared.pool.read(|reads| listing::page(reads, Some(&shared.connections), after, logs))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(json)) => Json(json).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What an operator's word does is what pressure does: nothing is lost, and the client comes back by itself.
async fn downgrade(
    State(shell): State<Arc<Shell>>,
    headers: HeaderMap,
    Path(connection): Path<u64>,
    Query(away): Query<Away>,
) -> Response {
    if let Err(response) = administers(&shell.shared, &headers) {
        return response;
    }
    let shared = Arc::clone(&shell.shared);
    let pool = Arc::clone(&shared.pool);
    let read = move || pool.read(|reads| reads.connection_of_key(connection));
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Ok(Some(row))) if shared.connections.ask_to_go(&row.id, away.away_ms) => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(Ok(Some(_))) => StatusCode::CONFLICT.into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
