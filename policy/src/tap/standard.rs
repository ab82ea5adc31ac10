//! Which jobtap plugins are ours, and what may they do?

use crate::plugin::Grant;

/// The plugins of every instance, in the original's order, without the `jobtap-` of their files.
pub const STANDARD_TAP: [&str; 11] = [
    "priority-default",
    "limit-job-size",
    "limit-duration",
    "dependency-after",
    "dependency-singleton",
    "begin-time",
    "validate-duration",
    "update-duration",
    "history",
    "post-event",
    "update-queue",
];

/// Returns what a plugin of ours is granted before the site says anything; `file` is the name of its files.
#[must_use]
pub fn own_grants(file: &str) -> &'static [Grant] {
    match file {
        "jobtap-alloc-bypass" => &[Grant::Bypass],
        "jobtap-history" | "jobtap-post-event" => &[Grant::Service],
        "jobtap-perilog" => &[Grant::Exec],
        _ => &[],
    }
}
