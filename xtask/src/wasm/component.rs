//! Is a core module a policy, and how does it become a component?

use anyhow::{Context, Result, bail, ensure};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// Package that alone may be imported.
const PACKAGE: &str = "flux:policy/";
/// Version that this tree builds for; the directory in `wit/` and the host's list go with it.
pub(super) const WIT_VERSION: &str = "0.1.0";

/// Returns the component of a core module that was built for `world`.
pub(super) fn encode(core: &[u8], world: &str) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .validate(true)
        .module(core)?
        .encode()?;
    check(&component, world)?;
    Ok(component)
}

/// Fails on any import outside `flux:policy`, another version, or a missing export.
fn check(component: &[u8], world: &str) -> Result<()> {
    let interface = match world {
        "validator" => "validation",
        "frobnicator" => "frobnication",
        "scheduler" => "scheduling",
        other => bail!("no world '{other}' in wit/"),
    };
    let version = format!("@{WIT_VERSION}");
    let mut exports = Vec::new();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.context("malformed component")? {
            // only the outermost component's imports and exports count
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let name = import?.name.name.to_owned();
                    ensure!(
                        name.starts_with(PACKAGE) && name.ends_with(&version),
                        "it imports {name}; only {PACKAGE}*{version} is granted to a policy"
                    );
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    for wanted in ["plugin", interface] {
        let name = format!("{PACKAGE}{wanted}{version}");
        ensure!(
            exports.contains(&name),
            "it does not export {name}, which the world {world} needs"
        );
    }
    Ok(())
}
