//! Module `content`: blobs by hash (RFC 10).
pub mod local;
