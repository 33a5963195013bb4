//! The promises of DESIGN section 7, a module each, on the real routers and a real Redis.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is how a test fails")]

mod access;
mod analysis;
mod api;
mod archive;
mod cleanup;
mod cli;
mod compaction;
mod completion;
mod containers;
mod digest;
mod embedded;
mod evaluation;
mod faults;
mod feed;
mod files;
mod gate;
mod intake;
mod issuer;
mod jwt;
mod levels;
mod limits;
mod lists;
mod live;
mod log;
mod mesh;
mod proxy;
mod redaction;
mod requests;
mod secrets;
mod seed;
mod socket;
mod stats;
mod status;
mod stores;
mod stream;
mod support;
mod tenancy;
mod tenants;
mod trace_level;
mod updates;
mod webhooks;
mod why;
