//! What runs in [`crate::sandbox`], as a user that nobody else is: TOML, and the name service.

pub mod names;
pub mod parser;
pub mod schema;
