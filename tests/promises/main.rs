//! The promises of DESIGN section 7, a module each, on the real routers and a real Redis.

mod log;
mod stream;
mod support;
