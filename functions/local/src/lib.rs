//! The whole of Tailspan in one process: its own Redis, every router, every background loop.

pub mod cli;
mod dashboard;
mod dev;
pub mod embedded;
mod guard;
pub mod health;
mod listen;
pub mod options;
pub mod serve;
mod streams;

/// The system's allocator, musl's above all, is slow where a run of ten thousand spans is many small texts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
