//! The outside world: addresses, sessions, throwaway servers.

mod address;
mod owner;
mod server;
mod throwaway;

pub use address::Address;
pub(crate) use address::error_position;
pub use server::{EngineChoice, Server, ServerOptions};
pub use throwaway::Database;
