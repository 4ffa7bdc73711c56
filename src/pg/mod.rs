//! The outside world: addresses, sessions, throwaway servers.

mod address;
mod owner;
mod server;
mod session;
mod throwaway;

pub(crate) use address::error_position;
pub use address::{Address, mask};
pub use server::{EngineChoice, Server, ServerOptions};
pub use session::{Failure, Limits, SEARCH_PATH, Session, Snapshot};
pub use throwaway::Database;
