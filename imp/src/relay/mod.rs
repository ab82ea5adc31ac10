//! The process that has become its caller again: nothing here has privilege. It belongs to its caller, who may do anything with it.

pub mod ask;
pub mod command;
pub mod devices;
pub mod input;
pub mod report;
mod serve;

pub use serve::{Monitor, Wanted, run};
