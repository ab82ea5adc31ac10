//! What several commands share: errors, output, opening the handle, times, tables.

pub(crate) mod args;
pub(crate) mod blob;
pub(crate) mod catalogue;
pub(crate) mod color;
pub(crate) mod ctx;
pub(crate) mod error;
pub(crate) mod eventlog;
pub(crate) mod format;
pub(crate) mod glob;
pub(crate) mod jobid;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod resources;
pub(crate) mod stamp;
pub(crate) mod tarball;
pub(crate) mod time;
pub(crate) mod trace;
pub(crate) mod treewalk;
pub(crate) mod uri;
pub(crate) mod user;
pub(crate) mod userconf;
pub(crate) mod words;
