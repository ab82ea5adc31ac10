//! How do `--format` strings make a table? Python's format specification with what flux-core adds to it.
//!
//! `{field!conversion:spec}` with conversions `D` `d` `F` `H` `P`, spec suffixes `h` (`-` for nothing) and `+` (mark
//! what was cut off), prefixes `?:` (drop the column when it is empty) and `+:` (widen to the longest value), and a
//! leading `sort:KEY,...`.

mod cell;
mod column;
mod spec;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use cell::{Cell, short_fsd};
pub(crate) use table::{Fields, Format, Layout};
