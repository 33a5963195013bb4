//! Live sessions: the dialect of a dev server, in which an agent tells of its run while it is developed.

pub mod compat;
pub mod frames;
pub mod grouping;
pub mod incremental;
mod json;
pub mod protocol;
pub mod wire_form;
