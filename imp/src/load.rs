//! How is configuration read? Root's files are opened with privilege, and read and parsed by a process that has none.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::config::Config;
use crate::helpers::parser::{self, Source};
use crate::refusal::demand;
use crate::sandbox::Helper;
use crate::{path, paths};

/// Most files of one directory.
const FILES_MAX: usize = 64;
/// How long the parser may take.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Returns the configuration.
///
/// # Errors
/// What to log.
pub fn load() -> Result<Config, String> {
    let imp = open(&paths::imp_config())?;
    let sign = open(&paths::sign_config())?;
    let mut parser = Helper::start("parser of configuration", |stream| {
        parser::run(&imp, &sign, stream)
    })?;
    let answer = parser.receive(TIME_MAX)?;
    match answer.get_str("mistake") {
        Some(why) => Err(why.to_owned()),
        None => Ok(Config(answer)),
    }
}

/// Opens `directory/*.toml` in the order of their names.
fn open(directory: &str) -> Result<Vec<Source>, String> {
    let opened = path::open_directory(directory)?;
    let entries = fs::read_dir(directory).map_err(|err| format!("{directory} cannot be listed: {err}"))?;
    let mut names = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            names.push(CString::new(bytes).map_err(|_| format!("{directory}: a name with NUL"))?);
        }
        let many = format!("{directory}: more than {FILES_MAX} files");
        demand(names.len() <= FILES_MAX, many)?;
    }
    let none = format!("{directory}/*.toml: No config file(s) found");
    demand(!names.is_empty(), none)?;
    names.sort();
    let open = |name: CString| {
        let path = format!("{directory}/{}", name.to_string_lossy());
        let file = path::open_in(&opened, &name).map_err(|why| format!("{path} {why}"))?;
        Ok((path, file))
    };
    names.into_iter().map(open).collect()
}
