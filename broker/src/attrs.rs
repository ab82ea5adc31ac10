//! Which broker attributes exist, who may change them and when?
//!
//! One table holds every known name with its flags and default (flux-core: broker/attr.c, behaviour). A name
//! outside the table is refused, so that a mistyped `-S` is an error.

use flux_formats::errno::{self, Errnum};
use std::collections::BTreeMap;

/// May not be set on the command line.
const READONLY: u8 = 1;
/// Never changes after start; clients may cache it.
const IMMUTABLE: u8 = 2;
/// May be changed at run time with `flux setattr`.
const RUNTIME: u8 = 4;

struct Entry {
    name: &'static str,
    flags: u8,
    default: Option<&'static str>,
}

const fn entry(name: &'static str, flags: u8, default: Option<&'static str>) -> Entry {
    Entry { name, flags, default }
}

const R: u8 = READONLY;
const I: u8 = IMMUTABLE;
const T: u8 = RUNTIME;

/// Names ending in `*` are patterns.
const TABLE: &[Entry] = &[
    entry("broker.boot-method", I, None),
    entry("broker.cleanup-timeout", 0, Some("none")),
    entry("broker.critical-ranks", I, None),
    entry("broker.exit-norestart", 0, None),
    entry("broker.exit-restart", T, None),
    entry("broker.mapping", R | I, None),
    entry("broker.module-nopanic", T, None),
    entry("broker.pid", R | I, None),
    entry("broker.quorum", I, None),
    entry("broker.quorum-warn", I, Some("1m")),
    entry("broker.rc1_path", 0, None),
    entry("broker.rc2_none", 0, None),
    entry("broker.rc2_pgrp", 0, None),
    entry("broker.rc3_path", 0, None),
    entry("broker.recovery-mode", 0, None),
    entry("broker.sd-notify", 0, None),
    entry("broker.sd-stop-timeout", I, Some("none")),
    entry("broker.shutdown-timeout", I, Some("none")),
    entry("broker.shutdown-warn", I, Some("1m")),
    entry("broker.starttime", R | I, None),
    entry("broker.unload-builtins-timeout", 0, Some("1m")),
    entry("broker.uuid", R | I, None),
    entry("conf.shell_initrc", T, None),
    entry("conf.shell_pluginpath", T, None),
    entry("config.path", I, None),
    entry("content.backing-module", 0, Some("content-sqlite")),
    entry("content.dump", T, None),
    entry("content.hash", I, Some("sha1")),
    entry("content.restore", T, None),
    entry("cron.directory", 0, None),
    entry("hostlist", I, None),
    entry("hostname", I, None),
    entry("instance-level", R | I, Some("0")),
    entry("jobid", R | I, None),
    entry("jobid-path", R | I, Some("/")),
    entry("local-uri", I, None),
    entry("log-critical-level", I, Some("2")),
    entry("log-filename", 0, None),
    entry("log-forward-level", I, Some("3")),
    entry("log-level", I, Some("7")),
    entry("log-ring-size", I, Some("1024")),
    entry("log-stderr-level", T, Some("3")),
    entry("log-stderr-mode", I, Some("leader")),
    entry("log-syslog-enable", I, Some("0")),
    entry("log-syslog-level", I, Some("3")),
    entry("parent-kvs-namespace", R | I, None),
    entry("parent-uri", R | I, None),
    entry("rank", R | I, None),
    entry("rundir", 0, None),
    entry("rundir-cleanup", I, None),
    entry("security.owner", R | I, None),
    entry("size", R | I, None),
    entry("statedir", 0, None),
    entry("statedir-cleanup", I, None),
    entry("tbon.child_rcvhwm", 0, Some("0")),
    entry("tbon.connect_timeout", 0, Some("30s")),
    entry("tbon.descendants", R, None),
    entry("tbon.endpoint", R, None),
    entry("tbon.fanout", 0, None),
    entry("tbon.interface-hint", T | I, Some("default-route")),
    entry("tbon.level", R, None),
    entry("tbon.maxlevel", R, None),
    entry("tbon.parent-endpoint", R, None),
    entry("tbon.prefertcp", 0, Some("0")),
    entry("tbon.tcp_user_timeout", 0, Some("20s")),
    entry("tbon.topo", 0, None),
    entry("tbon.torpid_max", 0, Some("30s")),
    entry("tbon.torpid_min", 0, Some("5s")),
    entry("tbon.zmq_io_threads", 0, Some("1")),
    entry("tbon.zmqdebug", 0, Some("0")),
    entry("version", R, None),
    entry("vendor.*", T | I, None),
    entry("test.*", T, None),
    entry("test-ro.*", R, None),
    entry("test-nr.*", 0, None),
    entry("test-im.*", I, None),
    entry("test-rd.*", R | T, None),
];

fn lookup(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| match entry.name.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => entry.name == name,
    })
}

/// Why an attribute was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// The name is not in the table.
    #[error("unknown attribute")]
    Unknown,
    /// The attribute is fixed by the broker itself, or only settable on the command line.
    #[error("attribute may not be updated")]
    NotRuntime,
    /// A read-only attribute was given on the command line.
    #[error("attribute {0} is read-only")]
    ReadOnly(String),
}

impl AttrError {
    /// Returns the error number that `attr.set` answers.
    pub fn errnum(&self) -> Errnum {
        match self {
            AttrError::Unknown => errno::ENOENT,
            AttrError::NotRuntime | AttrError::ReadOnly(_) => errno::EINVAL,
        }
    }
}

/// The attributes of one broker.
#[derive(Clone, Debug)]
pub struct Attrs {
    values: BTreeMap<String, String>,
}

impl Default for Attrs {
    fn default() -> Self {
        Self::new()
    }
}

impl Attrs {
    /// Returns the attributes at their defaults.
    pub fn new() -> Self {
        let values = TABLE
            .iter()
            .filter_map(|entry| {
                entry
                    .default
                    .map(|value| (entry.name.to_owned(), value.to_owned()))
            })
            .collect();
        Attrs { values }
    }

    /// Returns the value of an attribute that is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns the flags for `attr.get`: 1 when clients may cache the value.
    pub fn wire_flags(&self, name: &str) -> u32 {
        lookup(name).map_or(0, |entry| u32::from(entry.flags & IMMUTABLE != 0))
    }

    /// Returns all names that are set, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Sets an attribute from the broker's own code.
    pub fn set_internal(&mut self, name: &str, value: impl Into<String>) {
        debug_assert!(lookup(name).is_some(), "attribute {name} is not in the table");
        self.values.insert(name.to_owned(), value.into());
    }

    /// Sets an attribute from the command line (`-S NAME=VALUE`).
    ///
    /// # Errors
    /// [`AttrError::Unknown`] or [`AttrError::ReadOnly`].
    pub fn set_cmdline(&mut self, name: &str, value: &str) -> Result<(), AttrError> {
        let entry = lookup(name).ok_or(AttrError::Unknown)?;
        if entry.flags & (READONLY | RUNTIME) == READONLY {
            return Err(AttrError::ReadOnly(name.to_owned()));
        }
        self.values.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Sets an attribute at run time (`flux setattr`); `force` allows any attribute that is not immutable.
    ///
    /// # Errors
    /// [`AttrError::Unknown`] or [`AttrError::NotRuntime`].
    pub fn set_runtime(&mut self, name: &str, value: &str, force: bool) -> Result<(), AttrError> {
        let entry = lookup(name).ok_or(AttrError::Unknown)?;
        let immutable = entry.flags & IMMUTABLE != 0 && self.values.contains_key(name);
        if !force && (entry.flags & RUNTIME == 0 && self.values.contains_key(name) || immutable) {
            return Err(AttrError::NotRuntime);
        }
        if !force && entry.flags & RUNTIME == 0 {
            return Err(AttrError::NotRuntime);
        }
        self.values.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Removes a run-time attribute.
    ///
    /// # Errors
    /// [`AttrError::Unknown`] or [`AttrError::NotRuntime`].
    pub fn remove(&mut self, name: &str) -> Result<(), AttrError> {
        let entry = lookup(name).ok_or(AttrError::Unknown)?;
        if !self.values.contains_key(name) {
            return Err(AttrError::Unknown);
        }
        if entry.flags & RUNTIME == 0 {
            return Err(AttrError::NotRuntime);
        }
        self.values.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_patterns() {
        let mut attrs = Attrs::new();
        assert_eq!(attrs.get("tbon.tcp_user_timeout"), Some("20s"));
        assert_eq!(attrs.get("size"), None);
        attrs.set_cmdline("test.x", "1").unwrap();
        assert_eq!(attrs.get("test.x"), Some("1"));
        assert_eq!(attrs.set_cmdline("nope", "1"), Err(AttrError::Unknown));
        assert!(matches!(
            attrs.set_cmdline("rank", "1"),
            Err(AttrError::ReadOnly(_))
        ));
    }

    #[test]
    fn runtime_rules() {
        let mut attrs = Attrs::new();
        attrs.set_runtime("log-stderr-level", "7", false).unwrap();
        assert_eq!(
            attrs.set_runtime("log-ring-size", "7", false),
            Err(AttrError::NotRuntime)
        );
        assert_eq!(
            attrs.set_runtime("content.hash", "x", false),
            Err(AttrError::NotRuntime)
        );
        attrs.set_runtime("content.backing-module", "x", true).unwrap();
        assert_eq!(attrs.remove("content.hash"), Err(AttrError::NotRuntime));
        attrs.remove("log-stderr-level").unwrap();
        assert_eq!(attrs.wire_flags("content.hash"), 1);
        assert_eq!(attrs.wire_flags("log-stderr-level"), 0);
    }
}
