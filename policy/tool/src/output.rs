//! How does the command print?

use std::io::Write;

/// Prints a line; a reader that went away ends the output, not the program.
pub(crate) fn print(line: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a line for people beside the output.
pub(crate) fn note(line: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "{line}");
}
