//! The two ways in which a run ends before its end: somebody asks for it, or its time is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::gate::fields::duration;

/// Asks a run to end, from outside of it. Its clones are the same request.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<watch::Sender<bool>>);

impl Default for Interrupt {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Interrupt {
    /// Asks; once and for all.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Waits until somebody asks or the time is over, and says which.
    pub(super) async fn or_after(&self, timeout: Option<Duration>) -> Error {
        let mut asked = self.0.subscribe();
        let is_over = async {
            match timeout {
                Some(timeout) => {
                    tokio::time::sleep(timeout).await;
                    timeout
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error would mean that the sender is gone, and `self` holds it.
            _ = asked.wait_for(|asked| *asked) => {
                Error::new(ErrorKind::Interrupted, "not evaluated: the run was interrupted")
            }
            timeout = is_over => {
                let limit = duration(timeout.as_secs_f64());
                Error::new(ErrorKind::Timeout, format!("not evaluated: the run took longer than {limit}"))
                    .help("raise --timeout, or select fewer gates")
            }
        }
    }
}
