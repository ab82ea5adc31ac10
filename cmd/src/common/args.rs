//! How are the options written that many commands have?

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::error::{CmdError, usage};

/// Returns a flag without value.
pub(crate) fn flag(id: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(id).long(id).action(ArgAction::SetTrue).help(help);
    with_short(arg, short)
}

/// Returns an option with a value.
pub(crate) fn value(id: &'static str, short: Option<char>, name: &'static str, help: &'static str) -> Arg {
    with_short(
        Arg::new(id)
            .long(id)
            .value_name(name)
            .allow_hyphen_values(true)
            .help(help),
        short,
    )
}

/// Returns an option with a value that may be given several times.
pub(crate) fn values(id: &'static str, short: Option<char>, name: &'static str, help: &'static str) -> Arg {
    value(id, short, name, help).action(ArgAction::Append)
}

/// Returns an option whose value may be left out: `--verbose`, `--verbose=2`.
pub(crate) fn optional(
    id: &'static str,
    short: Option<char>,
    name: &'static str,
    missing: &'static str,
    help: &'static str,
) -> Arg {
    with_short(
        Arg::new(id)
            .long(id)
            .value_name(name)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value(missing)
            .action(ArgAction::Append)
            .help(help),
        short,
    )
}

/// Returns a required positional argument.
pub(crate) fn operand(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id)
        .value_name(id.to_ascii_uppercase())
        .required(true)
        .help(help)
}

/// Returns an optional positional argument.
pub(crate) fn operand_optional(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).value_name(id.to_ascii_uppercase()).help(help)
}

/// Returns any number of positional arguments, at least `least`.
pub(crate) fn operands(id: &'static str, least: usize, help: &'static str) -> Arg {
    Arg::new(id)
        .value_name(id.to_ascii_uppercase())
        .required(least > 0)
        .num_args(least..)
        .help(help)
}

/// Returns a command with its arguments: everything after the first operand, options included.
pub(crate) fn trailing(id: &'static str, required: bool, help: &'static str) -> Arg {
    Arg::new(id)
        .value_name(id.to_ascii_uppercase())
        .required(required)
        .num_args(if required { 1.. } else { 0.. })
        .trailing_var_arg(true)
        .help(help)
}

fn with_short(arg: Arg, short: Option<char>) -> Arg {
    match short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

/// Adds `-v, --verbose[=LEVEL]`, counted when repeated.
pub(crate) fn verbose(command: Command) -> Command {
    command.arg(optional(
        "verbose",
        Some('v'),
        "LEVEL",
        "1",
        "Increase verbosity [0-2]",
    ))
}

/// Returns the verbosity: the sum of the levels given.
///
/// # Errors
/// A usage error for a level that is no number.
pub(crate) fn verbosity(matches: &ArgMatches) -> Result<u32, CmdError> {
    let mut level = 0;
    for text in matches.get_many::<String>("verbose").into_iter().flatten() {
        match text.parse::<u32>() {
            Ok(number) => level += number,
            Err(_) => return usage(format!("invalid argument to --verbose: '{text}'")),
        }
    }
    Ok(level)
}

/// Returns the value of an option or operand.
pub(crate) fn text<'a>(matches: &'a ArgMatches, id: &str) -> Option<&'a str> {
    matches.get_one::<String>(id).map(String::as_str)
}

/// Returns the value of a required operand; clap has refused the command line without it.
pub(crate) fn required<'a>(matches: &'a ArgMatches, id: &str) -> &'a str {
    text(matches, id).unwrap_or("")
}

/// Returns all values of an option or operand.
pub(crate) fn list<'a>(matches: &'a ArgMatches, id: &str) -> Vec<&'a str> {
    matches
        .get_many::<String>(id)
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect()
}

/// Parses the value of an option.
///
/// # Errors
/// A usage error that names option and value.
pub(crate) fn parsed<T: std::str::FromStr>(matches: &ArgMatches, id: &str) -> Result<Option<T>, CmdError> {
    match text(matches, id) {
        None => Ok(None),
        Some(value) => match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => usage(format!("invalid value for --{id}: '{value}'")),
        },
    }
}
