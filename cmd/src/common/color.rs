//! Is output coloured? `--color[=WHEN]`, `NO_COLOR`, and whether a person looks at it.

use std::io::IsTerminal;

use clap::{Arg, ArgMatches};

use super::error::{CmdError, usage};

/// Returns the `-L, --color[=WHEN]` option; `short` is `None` for commands without the letter.
pub(crate) fn option(short: Option<char>) -> Arg {
    let arg = Arg::new("color")
        .long("color")
        .value_name("WHEN")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("always")
        .help("Colorize output when supported; WHEN can be 'always' (default if omitted), 'never', or 'auto' (default)");
    match short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

/// Decides from `--color` whether standard output is coloured.
///
/// # Errors
/// A usage error for an unknown WHEN.
pub(crate) fn wanted(matches: &ArgMatches) -> Result<bool, CmdError> {
    match matches.get_one::<String>("color").map(String::as_str) {
        None | Some("auto") => Ok(is_person()),
        Some("always") => Ok(true),
        Some("never") => Ok(false),
        Some(other) => usage(format!(
            "invalid argument to --color: '{other}' (use always, never or auto)"
        )),
    }
}

/// Returns true when standard output is a terminal and the user has not asked for plain text.
pub(crate) fn is_person() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
