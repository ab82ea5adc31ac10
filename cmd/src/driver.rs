//! Which sub-command was asked for? Global options, the table, external programs, "did you mean".

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};

use clap::{Arg, Command};

use crate::commands::{COMMANDS, Entry, Kind};
use crate::common::ctx::{Ctx, Style, eprint, stdout};
use crate::common::error::{CmdError, CmdResult};
use crate::paths;

/// Exit code of a command that failed.
const FAILED: u8 = 1;

/// Runs `flux ARGS`; `args` begins with the program's name.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let mut ctx = Ctx {
        name: "flux".to_owned(),
        style: Style::Plain,
        env: Vec::new(),
        words: Vec::new(),
        uri: None,
    };
    let mut rest = args.iter().skip(1).peekable();
    while let Some(option) = rest.next_if(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
        match option.to_str() {
            Some("-h" | "--help") => return finish(&ctx, usage()),
            Some("-v" | "--verbose") => {}
            Some("-V" | "--version") => return dispatch(&mut ctx, "version", &[]),
            Some("-p" | "--parent") => ctx.uri = Some("..".to_owned()),
            Some("-r" | "--root") => ctx.uri = Some("/".to_owned()),
            _ => {
                eprint(format!(
                    "flux: ERROR: unknown option {}; see 'flux --help'",
                    option.display()
                ));
                return ExitCode::from(FAILED);
            }
        }
    }
    let Some(name) = rest.next() else {
        let result = usage();
        return if result.is_ok() {
            ExitCode::from(FAILED)
        } else {
            finish(&ctx, result)
        };
    };
    let rest: Vec<OsString> = rest.cloned().collect();
    dispatch(&mut ctx, &name.to_string_lossy(), &rest)
}

fn dispatch(ctx: &mut Ctx, name: &str, args: &[OsString]) -> ExitCode {
    ctx.env = environment();
    ctx.words = args.to_vec();
    if let Some(entry) = find(COMMANDS, name) {
        ctx.name = format!("flux-{name}");
        ctx.style = entry.style;
        let result = match (name, args.first().and_then(|arg| arg.to_str())) {
            ("help", None) => usage(),
            ("help", Some(topic)) => help(ctx, topic, args.get(1).and_then(|arg| arg.to_str())),
            _ => run_entry(ctx, entry, &format!("flux {name}"), args),
        };
        return finish(ctx, result);
    }
    if let Some(path) = find_external(ctx, name) {
        let mut process = Process::new(&path);
        process
            .args(args)
            .env_clear()
            .envs(ctx.env.iter().map(|(key, value)| (key, value)));
        if let Some(uri) = &ctx.uri {
            match flux_client::uri::resolve_ancestor(uri, &flux_client::ConnectOptions::default()) {
                Ok(uri) => process.env("FLUX_URI", uri),
                Err(err) => return finish(ctx, Err(CmdError::Open(err))),
            };
        }
        let err = process.exec();
        return finish(ctx, Err(CmdError::file(path.display().to_string())(err)));
    }
    eprint(unknown(name));
    ExitCode::from(FAILED)
}

/// Builds the words for a command that does not exist.
fn unknown(name: &str) -> String {
    let mut near: Vec<(usize, &str)> = COMMANDS
        .iter()
        .filter(|entry| !entry.hidden)
        .map(|entry| (strsim::damerau_levenshtein(name, entry.name), entry.name))
        .filter(|(distance, other)| *distance <= 2.min(name.len() / 2) || other.starts_with(name))
        .collect();
    near.sort_unstable();
    let mut text = format!("flux: ERROR: '{name}' is not a flux command; see 'flux help' for the list");
    if !near.is_empty() {
        text.push_str("\n\nDid you mean:");
        for (_, other) in near.iter().take(4) {
            text.push_str("\n  flux ");
            text.push_str(other);
        }
    }
    text
}

fn find<'t>(table: &'t [Entry], name: &str) -> Option<&'t Entry> {
    table.iter().find(|entry| entry.name == name)
}

fn run_entry(ctx: &mut Ctx, entry: &Entry, path: &str, args: &[OsString]) -> CmdResult {
    match &entry.kind {
        Kind::Leaf { args: options, run } => {
            let command = leaf(entry, path, *options);
            let words = normalize(&command, args);
            let parsed = command.try_get_matches_from(std::iter::once(OsString::from(path)).chain(words));
            match parsed {
                Ok(matches) => run(ctx, &matches),
                Err(err) => refused(ctx, &err),
            }
        }
        Kind::Group(table) => {
            let (name, rest) = match args.split_first() {
                Some((name, rest)) if !name.as_encoded_bytes().starts_with(b"-") => (name, rest),
                Some((option, _)) if option == "-h" || option == "--help" => {
                    return print_group(entry, path, table).map(|()| 0);
                }
                _ => {
                    print_group_to(&mut std::io::stderr().lock(), entry, path, table)?;
                    return Err(CmdError::Silent(FAILED));
                }
            };
            let name = name.to_string_lossy();
            match find(table, &name) {
                Some(inner) => run_entry(ctx, inner, &format!("{path} {name}"), rest),
                None => Err(CmdError::Exit {
                    text: unknown_in(path, table, &name),
                    code: usage_code(ctx),
                }),
            }
        }
        Kind::Program { name, variable } => {
            let program = paths::find_program(name, variable);
            // a program may be several commands
            let err = Process::new(&program)
                .arg0(format!("flux-{}", entry.name))
                .args(args)
                .env_clear()
                .envs(ctx.env.iter().map(|(key, value)| (key, value)))
                .exec();
            Err(CmdError::file(program.display().to_string())(err))
        }
        Kind::Missing => {
            ctx.style = Style::Tagged;
            Err(CmdError::Text(format!(
                "'{path}' is not available yet in this version"
            )))
        }
    }
}

fn unknown_in(path: &str, table: &[Entry], name: &str) -> String {
    let near = table
        .iter()
        .filter(|entry| !entry.hidden)
        .map(|entry| (strsim::damerau_levenshtein(name, entry.name), entry.name))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    let hint = near.map_or_else(String::new, |(_, other)| format!("; did you mean '{other}'?"));
    format!("unknown subcommand '{name}'{hint} (see '{path} --help')")
}

fn leaf(entry: &Entry, path: &str, options: fn(Command) -> Command) -> Command {
    let command = Command::new(path.to_owned())
        .bin_name(path.to_owned())
        .about(entry.about)
        .infer_long_args(true)
        .args_override_self(true)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .arg(
            Arg::new("help")
                .short('h')
                .long("help")
                .action(clap::ArgAction::Help)
                .help("Display this message")
                .display_order(0),
        );
    options(command)
}

/// Lets `-v2` mean `-v=2` for options whose value may be left out, as getopt does.
fn normalize(command: &Command, args: &[OsString]) -> Vec<OsString> {
    let optional: Vec<char> = command
        .get_arguments()
        .filter(|arg| arg.is_require_equals_set())
        .filter_map(Arg::get_short)
        .collect();
    let mut words = args.to_vec();
    if optional.is_empty() {
        return words;
    }
    for word in &mut words {
        let Some(text) = word.to_str() else { break };
        if text == "--" {
            break;
        }
        let mut chars = text.chars();
        if chars.next() != Some('-') {
            continue;
        }
        let (Some(letter), rest) = (chars.next(), chars.as_str()) else {
            continue;
        };
        if optional.contains(&letter) && !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
            *word = OsString::from(format!("-{letter}={rest}"));
        }
    }
    words
}

/// Prints what clap says: help on standard output, a refusal in the command's own words.
fn refused(ctx: &Ctx, err: &clap::Error) -> CmdResult {
    if !err.use_stderr() {
        let mut out = stdout();
        write!(out, "{}", err.render())?;
        out.flush()?;
        return Ok(0);
    }
    let text = err.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    eprint(format!("{}: ERROR: {text}", ctx.name));
    Err(CmdError::Silent(usage_code(ctx)))
}

fn usage_code(ctx: &Ctx) -> u8 {
    match ctx.style {
        Style::Plain => 1,
        Style::Tagged => 2,
    }
}

fn finish(ctx: &Ctx, result: CmdResult) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            if !err.is_silent() {
                ctx.report(&err.to_string());
            }
            ExitCode::from(err.code())
        }
    }
}

fn usage() -> CmdResult {
    let mut out = stdout();
    writeln!(out, "Usage: flux [OPTIONS] COMMAND ARGS")?;
    writeln!(out, "  -h, --help             Display this message.")?;
    writeln!(
        out,
        "  -v, --verbose          Be verbose about environment and command search"
    )?;
    writeln!(
        out,
        "  -V, --version          Display command and component versions"
    )?;
    writeln!(
        out,
        "  -p, --parent           Set environment of parent instead of current instance"
    )?;
    writeln!(
        out,
        "  -r, --root             Set environment of the root instance"
    )?;
    writeln!(out, "\nCommands (see 'flux COMMAND --help'):")?;
    print_table(&mut out, COMMANDS)?;
    out.flush()?;
    Ok(0)
}

fn print_table(out: &mut impl Write, table: &[Entry]) -> std::io::Result<()> {
    let mut shown: Vec<&Entry> = table
        .iter()
        .filter(|entry| !entry.hidden && !matches!(entry.kind, Kind::Missing))
        .collect();
    shown.sort_by_key(|entry| entry.name);
    for entry in shown {
        writeln!(out, "   {:<18} {}", entry.name, entry.about)?;
    }
    Ok(())
}

fn print_group(entry: &Entry, path: &str, table: &[Entry]) -> Result<(), CmdError> {
    let mut out = stdout();
    print_group_to(&mut out, entry, path, table)?;
    out.flush()?;
    Ok(())
}

fn print_group_to(out: &mut impl Write, entry: &Entry, path: &str, table: &[Entry]) -> std::io::Result<()> {
    writeln!(
        out,
        "{}\n\nUsage: {path} SUBCOMMAND [OPTIONS]\n\nSubcommands:",
        entry.about
    )?;
    print_table(out, table)
}

/// Prints the help of a command as `--help` does.
fn help(ctx: &mut Ctx, topic: &str, sub: Option<&str>) -> CmdResult {
    let Some(entry) = find(COMMANDS, topic) else {
        return Err(CmdError::Text(
            unknown(topic).trim_start_matches("flux: ERROR: ").to_owned(),
        ));
    };
    ctx.name = format!("flux-{topic}");
    let mut args: Vec<OsString> = sub.into_iter().map(OsString::from).collect();
    args.push(OsString::from("--help"));
    run_entry(ctx, entry, &format!("flux {topic}"), &args)
}

/// Returns the directories that are searched for `flux-NAME`.
fn search_path(ctx: &Ctx) -> Vec<PathBuf> {
    let variable = |name: &str| ctx.env_str(name).unwrap_or("").to_owned();
    let joined = format!(
        "{}:{}",
        variable("FLUX_EXEC_PATH_PREPEND"),
        variable("FLUX_EXEC_PATH")
    );
    joined
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .collect()
}

fn find_external(ctx: &Ctx, name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return None;
    }
    search_path(ctx)
        .into_iter()
        .map(|dir| dir.join(format!("flux-{name}")))
        .find(|path| path.is_file())
}

/// Returns this process's environment with the variables by which parts of Flux find each other.
fn environment() -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    for (variable, key) in [
        ("FLUX_CONNECTOR_PATH", "connector_path"),
        ("FLUX_MODULE_PATH", "module_path"),
        ("MANPATH", "man_path"),
    ] {
        add_path(&mut env, variable, &paths::builtin(key));
    }
    add_path(&mut env, "FLUX_EXEC_PATH", &paths::exec_path());
    if let Some(dir) = paths::executable_dir().and_then(|dir| dir.into_os_string().into_string().ok()) {
        add_path(&mut env, "PATH", &dir);
    }
    env
}

/// Appends a directory to a search path unless it is there; `NAME_PREPEND` goes to the front.
fn add_path(env: &mut Vec<(OsString, OsString)>, name: &str, dir: &str) {
    let prepend = env
        .iter()
        .find(|(key, _)| *key == *OsStr::new(&format!("{name}_PREPEND")));
    let prepend = prepend.map(|(_, value)| value.to_string_lossy().into_owned());
    let at = env.iter().position(|(key, _)| *key == *OsStr::new(name));
    let current = at
        .and_then(|at| env.get(at))
        .map(|(_, value)| value.to_string_lossy().into_owned());
    let mut parts: Vec<&str> = Vec::new();
    let lists = [
        prepend.as_deref().unwrap_or(""),
        current.as_deref().unwrap_or(""),
        dir,
    ];
    for part in lists
        .iter()
        .flat_map(|list| list.split(':'))
        .filter(|part| !part.is_empty())
    {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let joined = OsString::from(parts.join(":"));
    match at.and_then(|at| env.get_mut(at)) {
        Some((_, value)) => *value = joined,
        None => env.push((OsString::from(name), joined)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_builds_and_has_help() {
        fn check(table: &[Entry], path: &str) {
            for entry in table {
                let path = format!("{path} {}", entry.name);
                match &entry.kind {
                    Kind::Leaf { args, .. } => leaf(entry, &path, *args).debug_assert(),
                    Kind::Group(inner) => check(inner, &path),
                    Kind::Program { .. } | Kind::Missing => {}
                }
                assert!(!entry.about.is_empty() && !entry.about.ends_with('.'), "{path}");
            }
        }
        check(COMMANDS, "flux");
    }

    #[test]
    fn names_are_unique_and_suggestions_near() {
        let mut names: Vec<_> = COMMANDS.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(unknown("sumbit").contains("flux submit"));
        assert!(unknown("queu").contains("flux queue"));
        assert!(!unknown("zzzzzz").contains("Did you mean"));
    }

    #[test]
    fn digits_after_an_optional_letter() {
        let command = Command::new("x")
            .arg(crate::common::args::optional("verbose", Some('v'), "L", "1", "h"))
            .arg(crate::common::args::trailing("command", false, "h"));
        let words: Vec<OsString> = ["-v2", "-vv", "--", "-v3"].map(OsString::from).to_vec();
        let words = normalize(&command, &words);
        assert_eq!(words, ["-v=2", "-vv", "--", "-v3"]);
        let matches = command.get_matches_from(["x", "-v=2", "-vv", "cmd", "-v"]);
        assert_eq!(crate::common::args::verbosity(&matches).unwrap(), 4);
        assert_eq!(crate::common::args::list(&matches, "command"), ["cmd", "-v"]);
    }

    #[test]
    fn search_paths_keep_the_users_order() {
        let mut env = vec![
            (OsString::from("A"), OsString::from("x:y")),
            (OsString::from("A_PREPEND"), "p".into()),
        ];
        add_path(&mut env, "A", "y");
        add_path(&mut env, "B", "z");
        assert_eq!(env[0].1, "p:x:y");
        assert_eq!(env[2], (OsString::from("B"), OsString::from("z")));
    }
}
