//! `/dead-letters`: the operator's view of what was taken off the main path (docs/protocol.md, "HTTP").
//!
//! It asks for a token with the right `admin` for `*`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use driftlog_core::id::LogName;
use serde::Deserialize;

use super::{administers, failed};
use crate::dead_letters::{DeadLetters, Include, LetterError, Listing};
use crate::{Shared, Shell};

#[derive(Deserialize)]
struct Asked {
    log: Option<String>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    content: bool,
}

pub(super) fn routes() -> Router<Arc<Shell>> {
    Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/{letter}", get(show).delete(discard))
        .route("/dead-letters/{letter}/redrive", post(redrive))
}

async fn list(State(shell): State<Arc<Shell>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    let letters = match admitted(&shell.shared, &headers) {
        Ok(letters) => letters,
        Err(response) => return response,
    };
    let log = match asked.log.as_deref().map(LogName::new).transpose() {
        Ok(log) => log,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let include = |yes| if yes { Include::Yes } else { Include::No };
    let (done, content) = (include(asked.done), include(asked.content));
    let listing = Listing { log, after: asked.after, done, content };
    match tokio::task::spawn_blocking(move || letters.list(&listing)).await {
        Ok(Ok(json)) => Json(json).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn show(State(shell): State<Arc<Shell>>, headers: HeaderMap, Path(letter): Path<u64>) -> Response {
    let letters = match admitted(&shell.shared, &headers) {
        Ok(letters) => letters,
        Err(response) => return response,
    };
    match tokio::task::spawn_blocking(move || letters.show(letter)).await {
        Ok(Ok(Some(json))) => Json(json).into_response(),
        Ok(Ok(None)) => unmoved(&LetterError::Missing(letter)),
        Ok(Err(error)) => failed(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn redrive(State(shell): State<Arc<Shell>>, headers: HeaderMap, Path(letter): Path<u64>) -> Response {
    match admitted(&shell.shared, &headers) {
        Ok(letters) => match letters.redrive(letter).await {
            Ok(json) => Json(json).into_response(),
            Err(error) => unmoved(&error),
        },
        Err(response) => response,
    }
}

async fn discard(State(shell): State<Arc<Shell>>, headers: HeaderMap, Path(letter): Path<u64>) -> Response {
    match admitted(&shell.shared, &headers) {
        Ok(letters) => match letters.discard(letter).await {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(error) => unmoved(&error),
        },
        Err(response) => response,
    }
}

fn unmoved(error: &LetterError) -> Response {
    let status = match error {
        LetterError::Missing(_) => StatusCode::NOT_FOUND,
        LetterError::NoAnswer => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (status, Json(error.json())).into_response()
}

// The error is an answer on its way out, made once.
#[allow(clippy::result_large_err)]
fn admitted(shared: &Shared, headers: &HeaderMap) -> Result<DeadLetters, Response> {
    administers(shared, headers)?;
    Ok(DeadLetters::new(Arc::clone(&shared.pool), shared.writer.clone()))
}
