//! Static files beside the protocol: types, caching, and nothing outside their folder.

use crate::running::Server;

#[tokio::test]
async fn files_are_served_with_their_types_and_pages_fall_back() {
    let folder = tempfile::TempDir::new().expect("a directory");
    let root = folder.path().join("site");
    std::fs::create_dir_all(root.join("assets")).expect("made");
    for (name, content) in
        [("index.html", "<p>home"), ("sw.js", "self"), ("assets/x-1.wasm", "wasm"), ("../key", "key")]
    {
        std::fs::write(root.join(name), content).expect("written");
    }
    let server = Server::start_with(tempfile::TempDir::new().expect("a directory"), |config| {
        config.static_files = Some(root);
    })
    .await;
    for (path, status, body, headers) in [
        ("/", 200, "<p>home", &["content-type: text/html", "cache-control: no-cache"][..]),
        ("/board/7", 200, "<p>home", &["content-type: text/html"]),
        ("/sw.js", 200, "self", &["content-type: text/javascript", "cache-control: no-cache"]),
        ("/assets/x-1.wasm", 200, "wasm", &["content-type: application/wasm", "immutable"]),
        ("/missing.js", 404, "", &[]),
        ("/../key", 404, "", &[]),
        ("/%2e%2e/key", 404, "", &[]),
    ] {
        let (got, head, content) = server.get_with_head(path, None).await;
        assert_eq!((got, content.as_str()), (status, body), "{path}");
        headers.iter().for_each(|header| assert!(head.contains(header), "{path}: {header} in {head}"));
    }
    assert_eq!(server.get("/health", None).await.0, 200, "files never hide the protocol");
    server.stop().await;
}
