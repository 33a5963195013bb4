//! The whole of Tailspan in one process: its own Redis, every router, every background loop.

pub mod embedded;
mod guard;
mod listen;
pub mod options;
pub mod serve;
