//! The whole of Tailspan in one process: its own Redis, every router, every background loop.

pub mod embedded;
mod guard;
pub mod health;
mod listen;
pub mod options;
pub mod serve;
mod streams;
