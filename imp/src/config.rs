//! What may be done, and by whom? The tables `[exec]` and `[run.NAME]` of `imp/conf.d` as they leave the parser's sandbox.

use flux_sign::kv::{Kv, Value};

use crate::log::Level;

/// Whether a job's processes are held in a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseCgroup {
    /// They are, or the job is refused.
    Require,
    /// They are, where it is possible.
    Auto,
    /// They are not.
    Off,
}

/// `[exec]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Who may ask for a shell.
    pub allowed_users: Vec<String>,
    /// Which shells may be asked for; compared as they are.
    pub allowed_shells: Vec<String>,
    /// Whether a PAM session is opened for the job's user.
    pub pam: bool,
    /// Whether a control group is used.
    pub cgroup: UseCgroup,
    /// Whether a request is refused that this node has seen before.
    pub refuse_replay: bool,
    /// Lowest user id that a job may have.
    pub uid_min: u32,
}

/// `[run.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Program.
    pub path: String,
    /// Who may ask for it.
    pub allowed_users: Vec<String>,
    /// Which variables are passed on: names, or patterns with `*` and `?`.
    pub allowed_environment: Vec<String>,
}

/// The configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[exec]`, when it is there.
    pub exec: Option<Exec>,
    /// The least level that is shown to the caller.
    pub log_level: Level,
    kv: Kv,
}

const EXEC_KEYS: [&str; 7] = [
    "allowed-users",
    "allowed-shells",
    "allow-unprivileged-exec",
    "pam-support",
    "cgroup",
    "replay",
    "min-uid",
];
const RUN_KEYS: [&str; 3] = ["path", "allowed-users", "allowed-environment"];

impl Config {
    /// Takes the tables out of flattened text, see `flux_sign::flatten`. Unknown keys of `[exec]` are refused: whoever
    /// misspells `pam-support` shall know.
    ///
    /// # Errors
    /// What to log: the key and what is wrong with it.
    pub fn from_kv(kv: Kv) -> Result<Self, String> {
        let log_level = match string(&kv, "log-level")? {
            None => Level::Warning,
            Some(name) => Level::from_name(name).ok_or("log-level must be debug, info or warning")?,
        };
        if boolean(&kv, "allow-sudo")? {
            return Err("allow-sudo is not supported: remove it".to_owned());
        }
        let exec = match kv.get("exec/") {
            None => None,
            Some(_) => Some(Exec::from_kv(&kv)?),
        };
        Ok(Config { exec, log_level, kv })
    }

    /// Returns `[run.NAME]`.
    ///
    /// # Errors
    /// What to log; the texts of the original where it has one.
    pub fn run(&self, name: &str) -> Result<Run, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let table = format!("run.{name}");
        if name.is_empty() || !name.chars().all(plain) || self.kv.get(&format!("{table}/")).is_none() {
            return Err(format!("run: {name}: no configuration found"));
        }
        only_known(&self.kv, &table, &RUN_KEYS)?;
        let path = string(&self.kv, &format!("{table}.path"))?;
        Ok(Run {
            path: path
                .ok_or(format!("run: {name}: path is missing or invalid"))?
                .to_owned(),
            allowed_users: strings(&self.kv, &format!("{table}.allowed-users"))?,
            allowed_environment: strings(&self.kv, &format!("{table}.allowed-environment"))?,
        })
    }
}

impl Exec {
    fn from_kv(kv: &Kv) -> Result<Self, String> {
        only_known(kv, "exec", &EXEC_KEYS)?;
        boolean(kv, "exec.allow-unprivileged-exec")?;
        let cgroup = match string(kv, "exec.cgroup")? {
            None | Some("auto") => UseCgroup::Auto,
            Some("require") => UseCgroup::Require,
            Some("off") => UseCgroup::Off,
            Some(_) => return Err("exec.cgroup must be auto, require or off".to_owned()),
        };
        let refuse_replay = match string(kv, "exec.replay")? {
            None | Some("allow") => false,
            Some("refuse") => true,
            Some(_) => return Err("exec.replay must be allow or refuse".to_owned()),
        };
        let uid_min = match kv.get("exec.min-uid") {
            None => 1,
            Some(Value::Int(uid)) => u32::try_from(*uid).map_err(|_| "exec.min-uid is no user id")?,
            Some(_) => return Err("exec.min-uid must be a number".to_owned()),
        };
        Ok(Exec {
            allowed_users: strings(kv, "exec.allowed-users")?,
            allowed_shells: strings(kv, "exec.allowed-shells")?,
            pam: boolean(kv, "exec.pam-support")?,
            cgroup,
            refuse_replay,
            uid_min,
        })
    }
}

fn only_known(kv: &Kv, table: &str, known: &[&str]) -> Result<(), String> {
    for (name, _) in kv.iter() {
        let Some(key) = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        let key = key.split(['.', '#', '/']).next().unwrap_or(key);
        if !known.contains(&key) {
            return Err(format!("{table}.{key} is unknown"));
        }
    }
    Ok(())
}

/// True when the key is there as an array or a table.
fn is_compound(kv: &Kv, key: &str) -> bool {
    kv.get(&format!("{key}#")).is_some() || kv.get(&format!("{key}/")).is_some()
}

fn string<'a>(kv: &'a Kv, key: &str) -> Result<Option<&'a str>, String> {
    match kv.get(key) {
        None if !is_compound(kv, key) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        _ => Err(format!("{key} must be a string")),
    }
}

fn boolean(kv: &Kv, key: &str) -> Result<bool, String> {
    match kv.get(key) {
        None if !is_compound(kv, key) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        _ => Err(format!("{key} must be true or false")),
    }
}

fn strings(kv: &Kv, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{key} must be an array of strings");
    match (
        kv.get(key),
        kv.get(&format!("{key}/")),
        kv.get_int(&format!("{key}#")),
    ) {
        (None, None, None) => Ok(Vec::new()),
        (None, None, Some(count)) => (0..count)
            .map(|at| {
                kv.get_str(&format!("{key}.{at}"))
                    .map(str::to_owned)
                    .ok_or_else(wrong)
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// Compares a name with a pattern in which `*` stands for any text and `?` for any one byte.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star did not fit: that star takes one byte more.
    let mut back = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, taken)) => {
                    back = Some((star, taken + 1));
                    p = star + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
