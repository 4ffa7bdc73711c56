//! `auto` takes the first engine that works and says so.

use postern::pg::{EngineChoice, Server, ServerOptions};

use crate::support;

#[tokio::test]
async fn the_first_engine_that_works_is_taken() {
    let server = Server::start(&ServerOptions::default()).await.unwrap();
    assert_eq!(server.engine(), EngineChoice::Local);
    let describe = server.describe();
    assert!(
        describe.ends_with("(auto: the first engine tried, and it works)"),
        "{describe}"
    );
    server.stop().await.unwrap();
}

/// A folder without programs and an image that cannot be had leave the URL only.
fn crippled() -> (ServerOptions, tempfile::TempDir) {
    let empty = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        bin_dir: Some(empty.path().to_owned()),
        image: Some("registry.invalid/postgres:0".into()),
        ..ServerOptions::default()
    };
    (options, empty)
}

#[tokio::test]
async fn what_was_not_taken_is_said_with_its_reason() {
    let (mut options, _empty) = crippled();
    options.url = Some(support::server().await.maintenance().clone());
    let server = Server::start(&options).await.unwrap();
    assert_eq!(server.engine(), EngineChoice::Url);
    let describe = server.describe();
    assert!(
        describe.contains("(auto: local does not work: "),
        "{describe}"
    );
    assert!(describe.contains("; docker does not work: "), "{describe}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn when_no_engine_works_every_reason_is_given() {
    let (options, _empty) = crippled();
    let error = Server::start(&options).await.unwrap_err();
    let notes = error.notes().join("\n");
    assert!(
        notes.contains("local: ") && notes.contains("docker: "),
        "{error:?}"
    );
    assert!(error.help_text().is_some());
}
