//! What does `[sign]` say? Its keys, their types and their limits.

use std::fmt;
use std::path::PathBuf;

use crate::kv::{Kv, Value};
use crate::token::Mechanism;

/// A `max-ttl` that lets every credential expire at once; the original allows it for tests.
const TTL_FOR_TESTS: i64 = -100;
/// Longest `sign.replay.cluster`.
const CLUSTER_MAX: usize = 64;

/// The `[sign]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For how many seconds a credential is good (`max-ttl`).
    pub max_ttl: i64,
    /// How to sign unless a mechanism is named (`default-type`).
    pub default_type: Mechanism,
    /// Which mechanisms pass (`allowed-types`); at least one.
    pub allowed_types: Vec<Mechanism>,
    /// Where munged listens (`munge.socket-path`).
    pub munge_socket: Option<PathBuf>,
    /// The cluster that tokens are made for (`replay.cluster`; the original has no such key and passes over the table).
    pub cluster: Option<String>,
}

/// Why `[sign]` is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no `[sign]` table.
    Absent,
    /// A key that must be there is not.
    Missing(&'static str),
    /// A key has a value of another type.
    Type(&'static str, &'static str),
    /// `[sign]` knows no such key.
    Unknown(String),
    /// `[sign.munge]` knows no such key.
    MungeUnknown(String),
    /// `socket-path` is not a string.
    MungeType,
    /// `max-ttl` is not a time.
    Ttl,
    /// `allowed-types` has no element.
    AllowedEmpty,
    /// An element of `allowed-types` is not a string.
    AllowedType(usize),
    /// There is no such mechanism.
    Mechanism(String),
    /// `replay.cluster` is not a short word.
    Cluster,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Absent => f.write_str("configuration object 'sign' not found"),
            ConfigError::Missing(key) => write!(f, "sign: config error: '{key}' must be set"),
            ConfigError::Type(key, kind) => write!(f, "sign: config error: '{key}' must be of type {kind}"),
            ConfigError::Unknown(key) => write!(f, "sign: config error: key '{key}' is unknown"),
            ConfigError::MungeUnknown(key) => write!(f, "sign-munge-init: key '{key}' is unknown"),
            ConfigError::MungeType => f.write_str("sign-munge-init: 'socket-path' must be of type string"),
            ConfigError::Ttl => f.write_str("sign: max-ttl should be greater than zero"),
            ConfigError::AllowedEmpty => f.write_str("sign: allowed-types array is empty"),
            ConfigError::AllowedType(at) => write!(f, "sign: allowed-types[{at}] not a string"),
            ConfigError::Mechanism(name) => write!(f, "sign: unknown mechanism={}", name.escape_debug()),
            ConfigError::Cluster => write!(
                f,
                "sign: replay.cluster must be a string of 1 to {CLUSTER_MAX} letters, digits, '-', '_' or '.'"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Takes `[sign]` out of flattened configuration (see `flatten`): `sign.max-ttl`, `sign.allowed-types.0`, and so
    /// on, `NAME#` being the length of an array and `NAME/` the mark of a table.
    ///
    /// # Errors
    /// Any [`ConfigError`]; texts are those of the original.
    pub fn from_kv(kv: &Kv) -> Result<Self, ConfigError> {
        if kv.get("sign/").is_none() {
            return Err(ConfigError::Absent);
        }
        only_known_keys(kv)?;
        let max_ttl = match kv.get("sign.max-ttl") {
            Some(Value::Int(secs)) => *secs,
            other => return Err(wrong(kv, other, "max-ttl", "integer")),
        };
        let default_type = match kv.get("sign.default-type") {
            Some(Value::String(name)) => name,
            other => return Err(wrong(kv, other, "default-type", "string")),
        };
        let Some(count) = kv.get_int("sign.allowed-types#") else {
            return Err(wrong(kv, kv.get("sign.allowed-types"), "allowed-types", "array"));
        };
        if max_ttl <= 0 && max_ttl != TTL_FOR_TESTS {
            return Err(ConfigError::Ttl);
        }
        let count = usize::try_from(count).unwrap_or(0);
        let allowed_types = (0..count)
            .map(|at| allowed_type(kv, at))
            .collect::<Result<Vec<_>, _>>()?;
        if allowed_types.is_empty() {
            return Err(ConfigError::AllowedEmpty);
        }
        let munge_socket = match kv.get("sign.munge.socket-path") {
            None => None,
            Some(Value::String(path)) => Some(PathBuf::from(path)),
            Some(_) => return Err(ConfigError::MungeType),
        };
        Ok(Config {
            max_ttl,
            default_type: mechanism(default_type)?,
            allowed_types,
            munge_socket,
            cluster: cluster(kv)?,
        })
    }
}

fn mechanism(name: &str) -> Result<Mechanism, ConfigError> {
    Mechanism::from_name(name).ok_or_else(|| ConfigError::Mechanism(name.to_owned()))
}

fn allowed_type(kv: &Kv, at: usize) -> Result<Mechanism, ConfigError> {
    mechanism(
        kv.get_str(&format!("sign.allowed-types.{at}"))
            .ok_or(ConfigError::AllowedType(at))?,
    )
}

fn cluster(kv: &Kv) -> Result<Option<String>, ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match kv.get("sign.replay.cluster") {
        None => Ok(None),
        Some(Value::String(name)) if (1..=CLUSTER_MAX).contains(&name.len()) && name.chars().all(plain) => {
            Ok(Some(name.clone()))
        }
        Some(_) => Err(ConfigError::Cluster),
    }
}

/// A missing key, or one of another type (arrays and tables have no value of their own).
fn wrong(kv: &Kv, value: Option<&Value>, key: &'static str, kind: &'static str) -> ConfigError {
    let other = ["#", "/"]
        .iter()
        .any(|mark| kv.get(&format!("sign.{key}{mark}")).is_some());
    match value {
        None if !other => ConfigError::Missing(key),
        _ => ConfigError::Type(key, kind),
    }
}

/// `[sign]` is strict about its keys but lets tables be: they belong to mechanisms.
fn only_known_keys(kv: &Kv) -> Result<(), ConfigError> {
    for (name, _) in kv.iter() {
        let Some(name) = name.strip_prefix("sign.") else {
            continue;
        };
        if let Some(key) = name.strip_prefix("munge.") {
            if key.trim_end_matches(['#', '/']) != "socket-path" {
                return Err(ConfigError::MungeUnknown(key.to_owned()));
            }
            continue;
        }
        let key = name.split(['.', '#', '/']).next().unwrap_or(name);
        let table = kv.get(&format!("sign.{key}/")).is_some();
        if !table && !["max-ttl", "default-type", "allowed-types"].contains(&key) {
            return Err(ConfigError::Unknown(key.to_owned()));
        }
    }
    Ok(())
}
