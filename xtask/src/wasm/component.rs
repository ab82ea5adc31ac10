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
        "jobtap" => "callbacks",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the smallest component that imports and exports one empty instance.
    fn component(import: &str, exports: &[&str]) -> Vec<u8> {
        let name = |name: &str| [&[0, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
        let section = |id: u8, items: &[Vec<u8>]| {
            let body = [vec![u8::try_from(items.len()).unwrap()], items.concat()].concat();
            [vec![id, u8::try_from(body.len()).unwrap()], body].concat()
        };
        let exports: Vec<_> = exports
            .iter()
            .map(|export| [name(export), vec![5, 0, 0]].concat())
            .collect();
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        component.extend(section(7, &[vec![0x42, 0]]));
        component.extend(section(10, &[[name(import), vec![5, 0]].concat()]));
        exports
            .iter()
            .for_each(|export| component.extend(section(11, std::slice::from_ref(export))));
        component
    }

    #[test]
    fn only_our_imports_are_granted() {
        let exports = ["flux:policy/plugin@0.1.0", "flux:policy/validation@0.1.0"];
        assert!(check(&component("flux:policy/log@0.1.0", &exports), "validator").is_ok());
        for foreign in [
            "wasi:cli/environment@0.2.0",
            "flux:policy/log@0.2.0",
            "flux:policyx/log@0.1.0",
        ] {
            let error = check(&component(foreign, &exports), "validator")
                .unwrap_err()
                .to_string();
            assert!(error.contains(foreign), "{error}");
        }
    }

    #[test]
    fn the_world_must_be_there() {
        let exports = ["flux:policy/plugin@0.1.0", "flux:policy/validation@0.1.0"];
        let component = component("flux:policy/log@0.1.0", &exports);
        let error = check(&component, "scheduler").unwrap_err().to_string();
        assert!(error.contains("flux:policy/scheduling@0.1.0"), "{error}");
        assert!(check(&component, "jobtap").is_err() && check(b"\0asm", "validator").is_err());
    }
}
