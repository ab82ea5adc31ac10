//! Is flux-core installed beside us, and how fast is it here?

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{Bench, Figure, Measure};

/// Groups that are about our programs alone, or would take flux-core hours.
const OURS_ALONE: [&str; 5] = ["schedulers", "policies", "guests", "jobtap", "history"];

/// Returns the prefix of flux-core: the one that was named, else that of the `flux` on PATH if it is flux-core's.
pub(super) fn find(named: Option<PathBuf>) -> Result<Option<PathBuf>> {
    if let Some(prefix) = named {
        if !is_original(&prefix.join("bin/flux")) {
            bail!("there is no flux-core in {}", prefix.display());
        }
        return Ok(Some(prefix));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let command = std::env::split_paths(&path)
        .map(|dir| dir.join("flux"))
        .find(|file| file.is_file());
    let prefix = command
        .filter(|file| is_original(file))
        .and_then(|file| Some(file.canonicalize().ok()?.parent()?.parent()?.to_owned()));
    Ok(prefix)
}

/// Our `flux version` has a line of its own, flux-core's has not.
fn is_original(flux: &Path) -> bool {
    let output = Command::new(flux).arg("version").env_remove("FLUX_URI").output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success() && text.contains("libflux-core:") && !text.contains("vendor:")
    })
}

/// Measures the same rows with flux-core, where it is installed.
pub(super) fn compare(
    original: Option<&Bench>,
    name: &str,
    measure: Measure,
    mut figures: Vec<Figure>,
) -> Vec<Figure> {
    let Some(original) = original.filter(|_| !OURS_ALONE.contains(&name)) else {
        return figures;
    };
    match measure(original) {
        Ok(theirs) => {
            for figure in &mut figures {
                if let Some(other) = theirs.iter().find(|other| other.work == figure.work) {
                    figure.compare(other.ours);
                }
            }
        }
        Err(err) => crate::print(&format!("{name}: flux-core could not be measured: {err:#}")),
    }
    figures
}
