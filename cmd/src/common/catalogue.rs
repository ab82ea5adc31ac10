//! Which formats does a command know by name? Built-in ones and those of the user's and the site's files.
//!
//! `flux-jobs.toml` (or `.json`) in the XDG directories holds tables `[formats.NAME]` with `format` and `description`;
//! for a command with sub-commands they are `[SUB.formats.NAME]`.

use std::io::Write;

use serde_json::Value;

use super::error::{CmdError, fail, usage};
use super::userconf;

/// Name, description, format.
pub(crate) type Known = (&'static str, &'static str, &'static str);

/// The formats of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Catalogue {
    /// The command in messages: `flux-resource list`.
    pub(crate) program: &'static str,
    /// Stem of the configuration file: `flux-resource`.
    pub(crate) file: &'static str,
    /// Table of the sub-command in that file.
    pub(crate) table: Option<&'static str>,
    /// Environment variable with the name of the default format.
    pub(crate) variable: &'static str,
    /// Built-in formats; the first is `default`.
    pub(crate) builtin: &'static [Known],
}

/// A format of a file.
#[derive(Debug)]
struct Own {
    name: String,
    about: String,
    format: String,
}

impl Catalogue {
    /// Returns the format that `--format` means; `None` when it asked for something to be printed, which has been.
    ///
    /// # Errors
    /// An unknown name, or a malformed file.
    pub(crate) fn choose(
        &self,
        given: Option<&str>,
        out: &mut impl Write,
    ) -> Result<Option<String>, CmdError> {
        let from_env = std::env::var(self.variable).ok().filter(|name| !name.is_empty());
        let name = match given {
            Some(name) if name != "default" => name,
            _ => from_env.as_deref().unwrap_or("default"),
        };
        if name.contains('{') {
            return Ok(Some(name.to_owned()));
        }
        if let Some((_, _, format)) = self.builtin.iter().find(|(known, _, _)| *known == name) {
            return Ok(Some((*format).to_owned()));
        }
        let own = self.own(&userconf::load(self.file)?)?;
        if name == "help" {
            self.print_names(&own, out)?;
            out.flush()?;
            return Ok(None);
        }
        if let Some(name) = name.strip_prefix("get-config=") {
            self.print_config(name, &own, out)?;
            out.flush()?;
            return Ok(None);
        }
        if let Some(found) = own.iter().find(|own| own.name == name) {
            return Ok(Some(found.format.clone()));
        }
        let names = self.builtin.iter().map(|(name, _, _)| *name);
        let names: Vec<&str> = names.chain(own.iter().map(|own| own.name.as_str())).collect();
        usage(format!(
            "--format: unknown format name '{name}' (use {} or a format string)",
            names.join(", ")
        ))
    }

    fn own(&self, config: &Value) -> Result<Vec<Own>, CmdError> {
        let (file, at) = (
            self.file,
            self.table.map_or_else(String::new, |table| format!("{table}.")),
        );
        let config = match self.table {
            Some(table) => config.get(table).unwrap_or(&Value::Null),
            None => config,
        };
        let Some(formats) = config.get("formats") else {
            return Ok(Vec::new());
        };
        let Some(formats) = formats.as_object() else {
            return fail(format!("configuration {file}: {at}formats must be a table"));
        };
        let mut own = Vec::new();
        for (name, entry) in formats {
            if self.builtin.iter().any(|(known, _, _)| known == name) {
                return fail(format!(
                    "configuration {file}: override of builtin format '{name}' not permitted"
                ));
            }
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
            let Some(format) = text("format") else {
                return fail(format!(
                    "configuration {file}: {at}formats.{name}: required key 'format' missing or no string"
                ));
            };
            own.push(Own {
                name: name.clone(),
                about: text("description").unwrap_or_default(),
                format,
            });
        }
        Ok(own)
    }

    fn print_names(&self, own: &[Own], out: &mut impl Write) -> Result<(), CmdError> {
        writeln!(out, "\nConfigured {} output formats:\n", self.program)?;
        for (name, about, _) in self.builtin {
            writeln!(out, "  {name:<12} {about}")?;
        }
        for Own { name, about, .. } in own {
            writeln!(out, "  {name:<12} {about}")?;
        }
        Ok(())
    }

    fn print_config(&self, name: &str, own: &[Own], out: &mut impl Write) -> Result<(), CmdError> {
        let builtin = self.builtin.iter().find(|(known, _, _)| *known == name);
        let (about, format) = match (builtin, own.iter().find(|own| own.name == name)) {
            (Some((_, about, format)), _) => (*about, *format),
            (None, Some(own)) => (own.about.as_str(), own.format.as_str()),
            (None, None) => return usage(format!("--format: No such format {name}")),
        };
        match self.table {
            Some(table) => writeln!(out, "[{table}.formats.{name}]")?,
            None => writeln!(out, "[formats.{name}]")?,
        }
        if !about.is_empty() {
            writeln!(out, "description = \"{about}\"")?;
        }
        writeln!(out, "format = \"{format}\"")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEST: Catalogue = Catalogue {
        program: "flux-test list",
        file: "flux-test-no-such-file",
        table: Some("list"),
        variable: "FLUX_TEST_NO_SUCH_VARIABLE",
        builtin: &[("default", "The default", "{a}"), ("long", "More", "{a} {b}")],
    };

    fn choose(given: &str) -> Result<(Option<String>, String), String> {
        let mut out = Vec::new();
        let chosen = TEST
            .choose(Some(given), &mut out)
            .map_err(|err| err.to_string())?;
        Ok((chosen, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn names() {
        assert_eq!(choose("default").unwrap().0.as_deref(), Some("{a}"));
        assert_eq!(choose("long").unwrap().0.as_deref(), Some("{a} {b}"));
        assert_eq!(choose("{x}").unwrap().0.as_deref(), Some("{x}"));
        assert!(choose("nope").unwrap_err().contains("default, long"));
        let (chosen, printed) = choose("help").unwrap();
        assert!(chosen.is_none() && printed.contains("Configured flux-test list output formats"));
        let printed = choose("get-config=long").unwrap().1;
        assert_eq!(
            printed,
            "[list.formats.long]\ndescription = \"More\"\nformat = \"{a} {b}\"\n"
        );
        assert!(choose("get-config=nope").is_err());
    }

    #[test]
    fn files() {
        let own = TEST
            .own(&json!({"list": {"formats": {"mine": {"format": "{m}"}}}, "formats": {"other": 1}}))
            .unwrap();
        assert_eq!((own.len(), own[0].format.as_str()), (1, "{m}"));
        for bad in [
            json!({"list": {"formats": []}}),
            json!({"list": {"formats": {"default": {"format": "{m}"}}}}),
            json!({"list": {"formats": {"mine": {"description": "x"}}}}),
        ] {
            assert!(TEST.own(&bad).is_err(), "{bad}");
        }
    }
}
