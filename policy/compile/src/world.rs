//! Which world does a component implement, and in which version of `flux:policy`?

use wasmparser::{Encoding, Parser, Payload};

/// Worlds and the interface by which one is told.
const WORLDS: [(&str, &str); 4] = [
    ("validator", "validation"),
    ("frobnicator", "frobnication"),
    ("scheduler", "scheduling"),
    ("jobtap", "callbacks"),
];
const PACKAGE: &str = "flux:policy/";

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorldError {
    #[error("malformed component: {0}")]
    Malformed(#[from] wasmparser::BinaryReaderError),
    #[error("it is a core module, not a component")]
    Module,
    #[error("it exports no world of flux:policy, only: {0}")]
    NoWorld(String),
}

/// Returns world and version.
pub(crate) fn of(component: &[u8]) -> Result<(&'static str, String), WorldError> {
    let mut exports = Vec::new();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { encoding, .. } if depth == 0 && encoding != Encoding::Component => {
                return Err(WorldError::Module);
            }
            // only what the outermost component exports counts
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let version = |interface: &str| {
        exports.iter().find_map(|name| {
            let (found, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
            (found == interface && version.chars().all(plain)).then(|| version.to_owned())
        })
    };
    let world = WORLDS
        .iter()
        .find_map(|(world, interface)| Some((*world, version(interface)?)));
    world.ok_or_else(|| WorldError::NoWorld(exports.join(", ")))
}
