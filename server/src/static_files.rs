//! Static files from one directory, for serving a demo or an app beside the protocol on one's own machine.
//!
//! A path without a file is answered with `index.html` when it looks like a page. Names below `assets/` are taken to
//! change with their content and may be kept for ever; everything else is asked for again.

use std::path::{Path, PathBuf};

use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

/// Answers with files below `root`.
pub(crate) fn service<S: Clone + Send + Sync + 'static>(root: PathBuf) -> MethodRouter<S> {
    get(move |method: Method, uri: Uri| {
        let root = root.clone();
        async move { answer(&root, &method, uri.path()).await }
    })
}

async fn answer(root: &Path, method: &Method, path: &str) -> Response {
    let Some(relative) = relative(path) else { return StatusCode::NOT_FOUND.into_response() };
    let is_page = relative.extension().is_none();
    let mut found = root.join(&relative);
    if is_page {
        let index = found.join("index.html");
        found = if tokio::fs::try_exists(&index).await.unwrap_or(false) { index } else { root.join("index.html") };
    }
    match tokio::fs::read(&found).await {
        Ok(bytes) => {
            let caching =
                if relative.starts_with("assets") { "public, max-age=31536000, immutable" } else { "no-cache" };
            let body = if method == Method::HEAD { Vec::new() } else { bytes };
            let headers = [
                (header::CONTENT_TYPE, media_type(&found)),
                (header::CACHE_CONTROL, caching),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, body).into_response()
        }
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The path below the root; none if it tries to leave it or is hidden.
fn relative(path: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let part = percent_decoded(part)?;
        if part.starts_with('.') || part.contains(['/', '\\', ':', '\0']) {
            return None;
        }
        relative.push(part);
    }
    Some(relative)
}

fn percent_decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(relative("/a/b%20c.js"), Some(PathBuf::from("a/b c.js")));
        assert_eq!(relative("/"), Some(PathBuf::new()));
        for path in ["/../x", "/a/%2e%2e/x", "/a%2fb", "/.git/config", "/a\\b", "/%zz", "/c:/x"] {
            assert_eq!(relative(path), None, "{path}");
        }
    }

    #[test]
    fn wasm_has_the_type_that_browsers_stream() {
        assert_eq!(media_type(Path::new("x/driftlog.wasm")), "application/wasm");
    }
}
