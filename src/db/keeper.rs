//! A runtime that lives as long as the process, for everything that has to outlive a test's own.
//!
//! Every `#[tokio::test]` has a runtime of its own, and a connection is tied to the one that
//! opened it. What tests share is opened and used here.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::Runtime;

use crate::error::{Error, ErrorKind, Result};

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postern")
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::Engine, format!("could not start: {error}")))
    });
    made.as_ref().map_err(Clone::clone)
}

/// Runs a future there and waits for it, from within any runtime.
pub(super) async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match runtime()?.spawn(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Runs a future there and blocks this thread until it is done, inside or outside of a runtime.
pub(super) fn block<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (tell, told) = std::sync::mpsc::channel();
    runtime()?.spawn(async move {
        // Nobody listens any more only if the process is ending.
        let _ = tell.send(work.await);
    });
    told.recv().unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Engine,
            "the work ended without a result",
        ))
    })
}
