//! What every process of Tailspan needs. It knows no route, and only [`redis`] knows fred.

pub mod keys;
pub mod redis;
