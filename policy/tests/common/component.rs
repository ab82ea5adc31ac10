//! Components made wrong on purpose: a good one, taken apart, changed and put together again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flux_policy::Manifest;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Section of a component that holds a core module; sections of a core module.
const CORE_MODULE: u8 = 1;
const TABLE: u8 = 4;
const MEMORY: u8 = 5;
/// Magic number and version.
const PREAMBLE: usize = 8;

/// Returns a component with all occurrences of a text replaced by one of the same length.
pub(crate) fn replace(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "lengths are written elsewhere as well");
    let mut out = component.to_vec();
    let mut at = 0;
    let mut replaced = 0;
    while let Some(found) = out[at..]
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    {
        at += found;
        out[at..at + to.len()].copy_from_slice(to.as_bytes());
        replaced += 1;
    }
    assert!(replaced > 0, "there is no {from}");
    out
}

/// Returns a component whose largest core module has a table of so many entries from the start.
pub(crate) fn with_table(component: &[u8], entries: u32) -> Vec<u8> {
    let table = [&[1, 0x70, 0][..], &leb(entries)].concat();
    with_section(component, TABLE, &table)
}

/// Returns a component whose largest core module has a memory of so many pages of 64 KiB from the start.
pub(crate) fn with_memory(component: &[u8], pages: u32) -> Vec<u8> {
    let memory = [&[1, 0][..], &leb(pages)].concat();
    with_section(component, MEMORY, &memory)
}

fn with_section(component: &[u8], id: u8, body: &[u8]) -> Vec<u8> {
    let outer = sections(component);
    let largest = outer
        .iter()
        .filter(|(id, _)| *id == CORE_MODULE)
        .map(|(_, body)| body.len())
        .max();
    let mut replaced = 0;
    let mut out = component[..PREAMBLE].to_vec();
    for (outer_id, content) in outer {
        if outer_id != CORE_MODULE || Some(content.len()) != largest {
            put(&mut out, outer_id, &content);
            continue;
        }
        let mut module = content[..PREAMBLE].to_vec();
        for (inner_id, content) in sections(&content) {
            replaced += usize::from(inner_id == id);
            put(
                &mut module,
                inner_id,
                if inner_id == id { body } else { &content },
            );
        }
        put(&mut out, outer_id, &module);
    }
    assert_eq!(replaced, 1, "the core module has one such section");
    out
}

fn put(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    out.extend(leb(u32::try_from(body.len()).unwrap()));
    out.extend(body);
}

/// Returns the sections of a component or core module.
fn sections(binary: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &binary[PREAMBLE..];
    let mut found = Vec::new();
    while let Some((id, tail)) = rest.split_first() {
        let (size, width) = unleb(tail);
        let (body, after) = tail[width..].split_at(size);
        found.push((*id, body.to_vec()));
        rest = after;
    }
    found
}

fn leb(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

fn unleb(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (value, at + 1);
        }
    }
    panic!("a number without end");
}

/// Compiles a component as the build does, with a manifest that says that all is well; returns what the compiler says when it refuses.
pub(crate) fn compile(dir: &Path, name: &str, world: &str, component: &[u8]) -> Result<(), String> {
    let wasm = dir.join(format!("{name}.wasm"));
    std::fs::write(&wasm, component).unwrap();
    let cwasm = dir.join(format!("{name}.cwasm"));
    let output = Command::new(compiler())
        .args([&wasm, &cwasm])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !output.status.success() {
        assert!(
            output.status.code().is_some(),
            "the compiler must not crash: {output:?}"
        );
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let hex = |bytes: &[u8]| -> String {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let manifest = json!({"name": name, "world": world, "wit": "0.1.0", "version": "0.0.0", "engine": "",
        "wasm_sha256": hex(component), "cwasm_sha256": hex(&std::fs::read(&cwasm).unwrap())});
    serde_json::from_value::<Manifest>(manifest.clone()).unwrap();
    std::fs::write(dir.join(format!("{name}.json")), manifest.to_string()).unwrap();
    Ok(())
}

fn compiler() -> PathBuf {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/wasm/compile/debug/flux-policy-compile"
    );
    std::env::var_os("FLUX_POLICY_COMPILE").map_or_else(|| PathBuf::from(built), PathBuf::from)
}
