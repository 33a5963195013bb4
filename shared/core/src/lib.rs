//! What Tailspan knows without a clock, an environment or a network: data in, data out.
//!
//! The modules stand in the order a span meets them.

pub mod analysis;
pub mod archive;
pub mod attributes;
pub mod chunk;
pub mod continuity;
pub mod convention;
pub mod cursor;
pub mod eval;
pub mod event;
pub mod feed;
pub mod files;
pub mod fold;
pub mod format;
pub mod forward;
pub mod frame;
pub mod id;
pub mod invocations;
pub mod lens;
pub mod limits;
pub mod listing;
pub mod live;
pub mod lower;
pub mod mesh;
pub mod model;
pub mod native;
pub mod notify;
pub mod observed;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod otlp;
pub mod pricing;
pub mod propagation;
pub mod quota;
pub mod redact;
pub mod retention;
pub mod settle;
pub mod stats;
pub mod summary;
pub mod tree;
pub mod verbosity;
pub mod why;
pub mod wire;

mod protobuf;
mod run;
