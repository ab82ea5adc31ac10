//! `flux module`: which modules does the broker run, how are they, load and unload them.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Handle, Message, NODEID_ANY};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Entry, plain};
use crate::common::args::{
    flag, list, operand, operand_optional, operands, optional, parsed, required, text, value,
};
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::json::{at_path, pretty};
use crate::common::trace;

/// Idle seconds above which the column only says so.
const IDLE_MAX: i64 = 99;
/// Widest service column of the long list.
const SERVICE_WIDTH: usize = 8;

pub(super) static TABLE: &[Entry] = &[
    plain("list", "List loaded modules", list_args, list_modules),
    plain("load", "Load module", load_args, load),
    plain("reload", "Unload and reload module", reload_args, reload),
    plain("remove", "Unload module", remove_args, remove),
    plain("stats", "Display stats on module", stats_args, stats),
    plain("debug", "Get/set module debug flags", debug_args, debug),
    plain("trace", "Trace module messages", trace_args, trace_messages),
];

#[derive(Deserialize)]
struct ListResponse {
    mods: Vec<Module>,
}

#[derive(Deserialize)]
struct Module {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    idle: i64,
    #[serde(default)]
    status: u32,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    sendqueue: u64,
    #[serde(default)]
    recvqueue: u64,
}

fn list_args(command: Command) -> Command {
    command.arg(flag("long", Some('l'), "Include full DSO path for each module"))
}

fn list_modules(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let modules = ctx
        .open()?
        .call_empty::<ListResponse>("module.list", NODEID_ANY)?
        .mods;
    let long = matches.get_flag("long");
    let mut out = stdout();
    let path = if long { "Path" } else { "" };
    let header = row(
        "Module",
        "Idle",
        "S",
        "Sendq",
        "Recvq",
        "Service",
        long.then_some(path),
    );
    writeln!(out, "{header}")?;
    for module in &modules {
        writeln!(out, "{}", module.row(long))?;
    }
    out.flush()?;
    Ok(0)
}

impl Module {
    fn row(&self, long: bool) -> String {
        let idle = if self.idle > IDLE_MAX {
            "idle".to_owned()
        } else {
            self.idle.to_string()
        };
        let services: Vec<&str> = self
            .services
            .iter()
            .map(String::as_str)
            .filter(|service| *service != self.name)
            .collect();
        let state = match self.status {
            0 => "I",
            1 => "R",
            2 => "F",
            3 => "X",
            _ => "?",
        };
        row(
            &self.name,
            &idle,
            state,
            &self.sendqueue.to_string(),
            &self.recvqueue.to_string(),
            &services.join(","),
            long.then_some(self.path.as_str()),
        )
    }
}

fn row(
    name: &str,
    idle: &str,
    state: &str,
    sendq: &str,
    recvq: &str,
    service: &str,
    path: Option<&str>,
) -> String {
    let head = format!("{name:<24.24} {idle:>5}  {state} {sendq:>5} {recvq:>5} ");
    match path {
        None => format!("{head}{service}"),
        Some(path) => {
            let mut short: String = service.chars().take(SERVICE_WIDTH).collect();
            if service.chars().count() > SERVICE_WIDTH {
                short.pop();
                short.push('+');
            }
            format!("{head}{short:<8} {path}")
        }
    }
}

fn load_args(command: Command) -> Command {
    command
        .arg(value("name", None, "NAME", "Override default module name"))
        .arg(flag("exec", None, "Load module in a separate process"))
        .arg(value(
            "loader",
            None,
            "PATH",
            "Specify executable to load the module",
        ))
        .arg(operand("module", "Module name or path"))
        .arg(
            operands("args", 0, "Module arguments")
                .trailing_var_arg(true)
                .allow_hyphen_values(true),
        )
}

fn load(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    load_module(&mut ctx.open()?, matches)
}

fn load_module(handle: &mut Handle, matches: &ArgMatches) -> CmdResult {
    let module = required(matches, "module");
    let mut request = json!({ "path": module, "args": list(matches, "args") });
    for key in ["name", "loader"] {
        if let (Some(value), Some(object)) = (text(matches, key), request.as_object_mut()) {
            object.insert(key.to_owned(), json!(value));
        }
    }
    if let (true, Some(object)) = (matches.get_flag("exec"), request.as_object_mut()) {
        object.insert("exec".to_owned(), json!(true));
    }
    handle
        .call::<IgnoredAny>("module.load", NODEID_ANY, &request)
        .map_err(CmdError::doing(format!("load {module}")))?;
    Ok(0)
}

fn remove_args(command: Command) -> Command {
    command
        .arg(flag("force", Some('f'), "Ignore nonexistent modules"))
        .arg(flag(
            "cancel",
            None,
            "Cancel the module's thread if it does not stop",
        ))
        .arg(operand("module", "Module name or path"))
}

fn remove(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    remove_module(&mut ctx.open()?, matches)
}

fn remove_module(handle: &mut Handle, matches: &ArgMatches) -> CmdResult {
    let path = required(matches, "module");
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".so").unwrap_or(name);
    let mut request = json!({ "name": name });
    if let (true, Some(object)) = (matches.get_flag("cancel"), request.as_object_mut()) {
        object.insert("cancel".to_owned(), json!(true));
    }
    match handle.call::<IgnoredAny>("module.remove", NODEID_ANY, &request) {
        Err(err) if matches.get_flag("force") && err.is_rpc(flux_formats::errno::ENOENT) => Ok(0),
        Err(err) => Err(CmdError::doing(format!("remove {name}"))(err)),
        Ok(_) => Ok(0),
    }
}

fn reload_args(command: Command) -> Command {
    load_args(command)
        .arg(flag("force", Some('f'), "Ignore nonexistent modules"))
        .arg(flag(
            "cancel",
            None,
            "Cancel the module's thread if it does not stop",
        ))
}

fn reload(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    remove_module(&mut handle, matches)?;
    load_module(&mut handle, matches)
}

fn stats_args(command: Command) -> Command {
    command
        .arg(value(
            "parse",
            Some('p'),
            "OBJNAME",
            "Parse object period-delimited object name",
        ))
        .arg(value("scale", Some('s'), "N", "Scale numeric JSON value by N"))
        .arg(value(
            "type",
            Some('t'),
            "int|double",
            "Convert JSON value to specified type",
        ))
        .arg(optional(
            "rusage",
            Some('R'),
            "self|children|thread",
            "self",
            "Request rusage data instead of stats",
        ))
        .arg(flag("clear", Some('c'), "Clear stats on target rank"))
        .arg(flag("clear-all", Some('C'), "Clear stats on all ranks"))
        .arg(operand_optional("module", "Service name (default: broker)"))
}

fn stats(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let service = text(matches, "module").unwrap_or("broker");
    let mut handle = ctx.open()?;
    let doing = |what: &str| CmdError::doing(format!("{service}.{what}"));
    if matches.get_flag("clear") {
        handle
            .call_empty::<IgnoredAny>(format!("{service}.stats-clear"), NODEID_ANY)
            .map_err(doing("stats-clear"))?;
        return Ok(0);
    }
    if matches.get_flag("clear-all") {
        handle.publish(&format!("{service}.stats-clear"), None, false)?;
        return Ok(0);
    }
    let value: Value = match text(matches, "rusage") {
        Some(who @ ("self" | "children" | "thread")) => handle
            .call(format!("{service}.rusage"), NODEID_ANY, &json!({ "who": who }))
            .map_err(doing("rusage"))?,
        Some(other) => {
            return usage(format!(
                "invalid --rusage argument '{other}' (use self, children or thread)"
            ));
        }
        None => handle
            .call_empty(format!("{service}.stats-get"), NODEID_ANY)
            .map_err(doing("stats-get"))?,
    };
    let value = match text(matches, "parse") {
        None => &value,
        Some(path) => match at_path(&value, path) {
            Some(found) => found,
            None => return fail(format!("{path}: not found in the stats of {service}")),
        },
    };
    writeln!(
        stdout(),
        "{}",
        stats_text(value, parsed(matches, "scale")?, text(matches, "type"))?
    )?;
    Ok(0)
}

fn stats_text(value: &Value, scale: Option<f64>, kind: Option<&str>) -> Result<String, CmdError> {
    let number = value.as_f64().map(|number| number * scale.unwrap_or(1.0));
    match (kind, number) {
        (Some("int"), Some(number)) => Ok(format!("{number:.0}")),
        (Some("double"), Some(number)) => Ok(format!("{number:.6}")),
        (Some("int" | "double"), None) => fail("the value is not a number"),
        (Some(other), _) => usage(format!("invalid --type '{other}' (use int or double)")),
        (None, Some(number)) if scale.is_some() => Ok(format!("{number:.6}")),
        (None, _) => Ok(pretty(value, 1)),
    }
}

fn debug_args(command: Command) -> Command {
    command
        .arg(flag("clear", Some('C'), "Set debug flags to 0"))
        .arg(value("set", Some('S'), "MASK", "Set debug flags to MASK"))
        .arg(value("setbit", Some('s'), "MASK", "Set one debug flag to 1"))
        .arg(value("clearbit", Some('c'), "MASK", "Set one debug flag to 0"))
        .arg(operand("module", "Service name"))
}

fn debug(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Response {
        flags: i64,
    }
    let (op, mask) = if matches.get_flag("clear") {
        ("clr", Some("0"))
    } else if let Some(mask) = text(matches, "set") {
        ("set", Some(mask))
    } else if let Some(mask) = text(matches, "setbit") {
        ("setbit", Some(mask))
    } else if let Some(mask) = text(matches, "clearbit") {
        ("clrbit", Some(mask))
    } else {
        ("setbit", None)
    };
    let flags = match mask.map(parse_mask) {
        None => 0,
        Some(Some(flags)) => flags,
        Some(None) => return usage(format!("invalid mask '{}'", mask.unwrap_or(""))),
    };
    let topic = format!("{}.debug", required(matches, "module"));
    let request = json!({ "op": op, "flags": flags });
    let response: Response = ctx
        .open()?
        .call(topic.as_str(), NODEID_ANY, &request)
        .map_err(CmdError::doing(&*topic))?;
    if mask.is_none() {
        writeln!(stdout(), "0x{:x}", response.flags)?;
    }
    Ok(0)
}

fn parse_mask(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn trace_args(command: Command) -> Command {
    trace::options(command)
        .arg(value(
            "topic",
            Some('T'),
            "GLOB",
            "Filter output by message topic glob",
        ))
        .arg(operands("module", 0, "Modules to trace; all if absent"))
}

fn trace_messages(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut names: Vec<String> = list(matches, "module").into_iter().map(str::to_owned).collect();
    if names.is_empty() {
        let modules = handle.call_empty::<ListResponse>("module.list", NODEID_ANY)?.mods;
        names = modules.into_iter().map(|module| module.name).collect();
    }
    let full = matches.get_flag("full");
    let request = json!({
        "typemask": trace::typemask(matches)?,
        "topic_glob": text(matches, "topic").unwrap_or("*"),
        "names": names,
        "full": full,
    });
    let stream = handle.stream("module.trace", NODEID_ANY, &request)?;
    let mut printer = trace::Printer::from_matches(matches, color::wanted(matches)?);
    let mut next = || -> Result<Option<Message>, CmdError> { Ok(handle.next(&stream)?) };
    while let Some(message) = next()? {
        let mut out = stdout();
        writeln!(out, "{}", printer.line(&message)?)?;
        out.flush()?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_lines() {
        assert_eq!(
            row("Module", "Idle", "S", "Sendq", "Recvq", "Service", None),
            "Module                    Idle  S Sendq Recvq Service"
        );
        assert_eq!(
            row("Module", "Idle", "S", "Sendq", "Recvq", "Service", Some("Path")),
            "Module                    Idle  S Sendq Recvq Service  Path"
        );
        let module = |services: &[&str], idle| Module {
            name: "connector-local".to_owned(),
            path: "builtin".to_owned(),
            idle,
            status: 1,
            services: services.iter().map(|s| (*s).to_owned()).collect(),
            sendqueue: 0,
            recvqueue: 0,
        };
        assert_eq!(
            module(&[], 2).row(false),
            "connector-local              2  R     0     0 "
        );
        assert_eq!(
            module(&["connector-local", "0-shell-f2hBTSRV"], 100).row(true),
            "connector-local           idle  R     0     0 0-shell+ builtin"
        );
        assert_eq!(
            module(&[], 0).row(true),
            "connector-local              0  R     0     0          builtin"
        );
    }

    #[test]
    fn stats_values() {
        assert_eq!(stats_text(&json!(2.5), Some(2.0), Some("int")).unwrap(), "5");
        assert_eq!(stats_text(&json!(3), None, Some("double")).unwrap(), "3.000000");
        assert_eq!(stats_text(&json!(3), None, None).unwrap(), "3");
        assert!(stats_text(&json!("x"), None, Some("int")).is_err());
        assert_eq!(
            (parse_mask("0x10"), parse_mask("7"), parse_mask("z")),
            (Some(16), Some(7), None)
        );
    }
}
