//! The outside world: addresses, sessions, throwaway servers.

mod address;

pub use address::Address;
