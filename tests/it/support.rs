//! What the tests share.

use postern::pg::{Database, EngineChoice, Server, ServerOptions};
use tokio::sync::OnceCell;

/// An empty database on the server that all tests of this process share.
pub async fn database() -> Database {
    server()
        .await
        .create_database("it")
        .await
        .expect("a running server makes databases")
}

/// One local server per test process.
///
/// It holds addresses, never connections: each `#[tokio::test]` has its own runtime. A static is
/// not dropped; the server goes when the process does, by its supervisor.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            Server::start(&local())
                .await
                .expect("the tests need Postgres' server programs on this machine")
        })
        .await
}

/// Options for a private server from this machine's programs.
pub fn local() -> ServerOptions {
    ServerOptions {
        engine: EngineChoice::Local,
        ..ServerOptions::default()
    }
}
