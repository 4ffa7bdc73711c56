//! The outside world: addresses, sessions, throwaway servers.

mod address;
mod cache;
mod lock;
mod owner;
mod server;
mod session;
mod throwaway;

pub(crate) use address::error_position;
pub use address::{Address, mask};
pub(crate) use cache::{Cache, key as content_key, write_whole};
pub(crate) use lock::{Lock, is_held};
pub(crate) use owner::{machine, random_hex};
#[cfg(unix)]
pub(crate) use server::local::{help_for_room, shared};
#[cfg(feature = "cli")]
pub(crate) use server::sweep_containers;
pub use server::{EngineChoice, Server, ServerOptions};
pub use session::{Failure, Limits, Room, SEARCH_PATH, Session, Snapshot, Taken, terminate};
pub use throwaway::Database;
pub(crate) use throwaway::{close, connect, end_sessions, execute, plain};
