//! Which jobs are there, and how do they do? Lists and statistics (RFC 43), fed by the job manager's journal.
//!
//! Active jobs are in memory, inactive ones in a database with threads of its own (design note 0005). [`view`] is what
//! lists and constraints see of a job, wherever it is.
//!
//! Pure: `apply` (what an event changes), `constraint` and `sql` (what matches), `attrs` (what is shown), `stats`.
//! The actor: `service`, `list` and `stream` (lists), `archive`, `lane` and `db` (the database), `history` (the KVS).

mod apply;
mod archive;
mod attrs;
mod constraint;
mod db;
mod history;
mod intern;
mod job;
mod lane;
mod list;
mod row;
mod service;
mod sql;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod view;

pub use service::JobList;
