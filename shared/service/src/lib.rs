//! What every process of Tailspan needs. It knows no route, and only [`redis`] knows fred.

pub mod access;
pub mod agents;
pub mod app;
pub mod archive;
#[cfg(feature = "aws")]
pub mod aws;
pub mod body;
pub mod config;
pub mod cors;
pub mod envelope;
pub mod error;
pub mod evaluation;
pub mod extract;
pub mod forward;
pub mod function;
mod group;
pub mod keys;
pub mod limits;
pub mod live;
pub mod log;
pub mod mesh;
pub mod metrics;
#[cfg(feature = "openapi")]
pub mod openapi;
mod operator_file;
pub mod outward;
pub mod redis;
pub mod redis_url;
pub mod requests;
pub mod schedule;
pub mod telemetry;
pub mod tls;
pub mod webhooks;

pub use app::App;
