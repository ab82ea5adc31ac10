//! Which keys has the configuration, and of which kinds? Asked in the parser's sandbox; [`crate::config`] reads the answer.

use flux_sign::kv::{Kv, Value};

use crate::log::Level;
use crate::wire::LIST_MAX;

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

/// The answer.
#[derive(Default)]
struct Answer(Kv);

impl Answer {
    fn put(&mut self, key: &str, value: Value) {
        // No key of ours is empty, and no text of flattened TOML has a NUL.
        let _put = self.0.put(key, value);
    }

    fn text(&mut self, key: &str, text: &str) {
        self.put(key, Value::String(text.to_owned()));
    }

    fn texts(&mut self, key: &str, list: &[String]) {
        for (at, text) in list.iter().enumerate() {
            self.text(&format!("{key}.{at}"), text);
        }
    }
}

/// Takes the tables out of flattened text, see `flux_sign::flatten`. Unknown keys of `[exec]` and `[run.NAME]` are refused:
/// whoever misspells `pam-support` shall know.
///
/// ```text
/// log-level I, exec B, [exec.user.N S, exec.shell.N S, exec.pam B, exec.cgroup I (0 off, 1 auto, 2 require),
/// exec.refuse-replay B, exec.min-uid I,] {run.NAME.path S, run.NAME.user.N S, run.NAME.environment.N S}
/// or run.NAME.mistake S, sign/ and sign.* as they are
/// ```
///
/// # Errors
/// What to log: the key and what is wrong with it. A mistake in one `[run.NAME]` is for those who want that one.
pub fn check(imp: &Kv, sign: &Kv) -> Result<Kv, String> {
    let level = match string(imp, "log-level")? {
        None | Some("warning") => Level::Warning,
        Some("info") => Level::Info,
        Some("debug") => Level::Debug,
        Some(_) => return Err("log-level must be debug, info or warning".to_owned()),
    };
    if boolean(imp, "allow-sudo")? {
        return Err("allow-sudo is not supported: remove it".to_owned());
    }
    let mut answer = Answer::default();
    answer.put("log-level", Value::Int(level.number()));
    let exec = imp.get("exec/").is_some();
    answer.put("exec", Value::Bool(exec));
    if exec {
        check_exec(imp, &mut answer)?;
    }
    let tables = imp.iter().filter_map(|(key, _)| key.strip_prefix("run."));
    let names = tables.filter_map(|rest| rest.strip_suffix('/').filter(|name| !name.contains('.')));
    for name in names {
        if let Err(why) = check_run(imp, name, &mut answer) {
            answer.text(&format!("run.{name}.mistake"), &why);
        }
    }
    let own = |key: &str| key == "sign/" || key.starts_with("sign.");
    for (key, value) in sign.iter().filter(|(key, _)| own(key)) {
        answer.put(key, value.clone());
    }
    Ok(answer.0)
}

fn check_exec(kv: &Kv, answer: &mut Answer) -> Result<(), String> {
    only_known(kv, "exec", &EXEC_KEYS)?;
    boolean(kv, "exec.allow-unprivileged-exec")?;
    answer.texts("exec.user", &strings(kv, "exec.allowed-users")?);
    answer.texts("exec.shell", &strings(kv, "exec.allowed-shells")?);
    answer.put("exec.pam", Value::Bool(boolean(kv, "exec.pam-support")?));
    let cgroup = match string(kv, "exec.cgroup")? {
        Some("off") => 0,
        None | Some("auto") => 1,
        Some("require") => 2,
        Some(_) => return Err("exec.cgroup must be auto, require or off".to_owned()),
    };
    answer.put("exec.cgroup", Value::Int(cgroup));
    let refuse = match string(kv, "exec.replay")? {
        None | Some("allow") => false,
        Some("refuse") => true,
        Some(_) => return Err("exec.replay must be allow or refuse".to_owned()),
    };
    answer.put("exec.refuse-replay", Value::Bool(refuse));
    let uid_min = match kv.get("exec.min-uid") {
        None => 1,
        Some(Value::Int(uid)) => u32::try_from(*uid).map_err(|_| "exec.min-uid is no user id")?,
        Some(_) => return Err("exec.min-uid must be a number".to_owned()),
    };
    answer.put("exec.min-uid", Value::Int(i64::from(uid_min)));
    Ok(())
}

fn check_run(kv: &Kv, name: &str, answer: &mut Answer) -> Result<(), String> {
    let table = format!("run.{name}");
    only_known(kv, &table, &RUN_KEYS)?;
    let path = string(kv, &format!("{table}.path"))?;
    let path = path.ok_or(format!("{name}: path is missing or invalid"))?;
    let users = strings(kv, &format!("{table}.allowed-users"))?;
    let environment = strings(kv, &format!("{table}.allowed-environment"))?;
    answer.text(&format!("{table}.path"), path);
    answer.texts(&format!("{table}.user"), &users);
    answer.texts(&format!("{table}.environment"), &environment);
    Ok(())
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
    let many = i64::try_from(LIST_MAX).unwrap_or(i64::MAX);
    match (
        kv.get(key),
        kv.get(&format!("{key}/")),
        kv.get_int(&format!("{key}#")),
    ) {
        (None, None, None) => Ok(Vec::new()),
        (None, None, Some(count)) if count > many => Err(format!("{key} has more than {LIST_MAX} elements")),
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
