//! Ctrl-C and SIGTERM.

use crate::error::{Error, ErrorKind};

/// Waits until the user (SIGINT) or the system (SIGTERM) asks this process to stop.
pub(super) async fn asked() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            },
            // Without a handler SIGTERM ends the process at once, as it would any other.
            Err(_) => drop(interrupted.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupted.await);
}

/// The error of a command that was asked to stop.
pub(super) fn error(what_is_open: &str) -> Error {
    Error::new(
        ErrorKind::Interrupted,
        format!("interrupted; {what_is_open}"),
    )
}
