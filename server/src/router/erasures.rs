//! `/erasures`: what operators have erased, and have erased from now on (docs/protocol.md, "HTTP").
//!
//! It asks for a token with the right `admin` for `*`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{administers, failed};
use crate::Shell;
use crate::erasing::{self, EraseError, Erased};

#[derive(Deserialize)]
struct Asked {
    log: Option<String>,
    collection: Option<String>,
    record: Option<String>,
    author: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Shell>> {
    Router::new().route("/erasures", get(list).post(erase)).route("/erasures/clients", get(clients))
}

async fn erase(State(shell): State<Arc<Shell>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    if let Err(response) = administers(&shell.shared, &headers) {
        return response;
    }
    let Asked { log, collection, record, author } = asked;
    let erased = Erased::asked(log.as_deref(), collection.as_deref(), record.as_deref(), author.as_deref());
    let outcome = match erased {
        Ok(erased) => erasing::erase(&shell.shared, erased).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(json) => Json(json).into_response(),
        Err(error) => {
            let status = match error {
                EraseError::Unknown => StatusCode::NOT_FOUND,
                EraseError::Asked(_) => StatusCode::BAD_REQUEST,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, Json(json!({ "reason": error.to_string() }))).into_response()
        }
    }
}

async fn list(State(shell): State<Arc<Shell>>, headers: HeaderMap) -> Response {
    if let Err(response) = administers(&shell.shared, &headers) {
        return response;
    }
    let shared = Arc::clone(&shell.shared);
    let read = move || shared.pool.read(|reads| erasing::list(reads, Some(&shared.connections)));
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(json)) => Json(json).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn clients(State(shell): State<Arc<Shell>>, headers: HeaderMap) -> Response {
    if let Err(response) = administers(&shell.shared, &headers) {
        return response;
    }
    let shared = Arc::clone(&shell.shared);
    let read = move || shared.pool.read(|reads| erasing::waiting(reads, Some(&shared.connections)));
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(json)) => Json(json).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
