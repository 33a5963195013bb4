//! The promises of DESIGN section 7, a module each, on the real routers and a real Redis.

mod faults;
mod intake;
mod log;
mod proxy;
mod stream;
mod support;
