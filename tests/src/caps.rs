//! What does this machine lack, and which cases were skipped for it?

use std::io::Write;
use std::process::{Command, Stdio};

/// Something that a test needs and a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// A C compiler for MPICH programs.
    Mpicc,
    /// MPICH's launcher.
    Hydra,
    /// A Python interpreter, 3.9 or later.
    Python,
    /// Root, to become another user.
    Root,
    /// Permission to mount a small tmpfs.
    Mount,
    /// What a site of several nodes takes: root, namespaces with virtual Ethernet between them, munged.
    Site,
    /// Chromium, to look at pages.
    Chromium,
    /// Zig, which compiles policies in C.
    Zig,
    /// componentize-py, which builds policies in Python, and an optimised compiler in FLUX_POLICY_COMPILE: the one of a debug build takes minutes.
    ComponentizePy,
    /// componentize-js, which builds policies in JavaScript, and such a compiler.
    ComponentizeJs,
}

impl Capability {
    fn name(self) -> &'static str {
        match self {
            Capability::Mpicc => "mpicc",
            Capability::Hydra => "mpiexec.hydra",
            Capability::Python => "python3",
            Capability::Root => "root",
            Capability::Mount => "mount",
            Capability::Site => "site",
            Capability::Chromium => "chromium",
            Capability::Zig => "zig",
            Capability::ComponentizePy => "componentize-py",
            Capability::ComponentizeJs => "componentize-js",
        }
    }

    fn present(self) -> bool {
        match self {
            Capability::Root => nix::unistd::geteuid().is_root(),
            Capability::Mount => succeeds("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]),
            Capability::Site => {
                let links = "ip link add br0 type bridge && ip link add veth0 type veth peer name veth1";
                let munge = std::path::Path::new("/usr/sbin/munged").exists();
                munge && Capability::Root.present() && succeeds("unshare", &["-mnu", "sh", "-c", links])
            }
            Capability::Python => succeeds(
                "python3",
                &["-c", "import sys; sys.exit(sys.version_info < (3, 9))"],
            ),
            Capability::Chromium => succeeds("chromium", &["--version"]),
            Capability::Zig => succeeds(&langs("venv/bin/python3"), &["-c", "import ziglang"]),
            Capability::ComponentizePy => {
                has_fast_compiler() && succeeds(&langs("venv/bin/componentize-py"), &["--version"])
            }
            Capability::ComponentizeJs => {
                has_fast_compiler()
                    && std::path::Path::new(&langs("node_modules/@bytecodealliance/componentize-js")).is_dir()
                    && succeeds("node", &["--version"])
            }
            Capability::Mpicc => succeeds("mpicc", &["-v"]),
            Capability::Hydra => succeeds("mpiexec.hydra", &["-version"]),
        }
    }
}

/// Returns a path below the directory where `etc/build/policy-langs.sh` puts the tool chains of policies.
#[must_use]
pub fn langs(name: &str) -> String {
    crate::bindir()
        .join("../wasm/langs")
        .join(name)
        .display()
        .to_string()
}

fn has_fast_compiler() -> bool {
    std::env::var_os("FLUX_POLICY_COMPILE").is_some()
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Returns true, says so and counts the case when the machine lacks what the test needs; the test then returns.
///
/// The names go to the file that `FLUX_TEST_SKIPPED` names, one line per case: `make check` shows and judges them.
#[must_use]
pub fn missing(needed: Capability) -> bool {
    if needed.present() {
        return false;
    }
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED {test}: this machine lacks {}", needed.name());
    if let Some(path) = std::env::var_os("FLUX_TEST_SKIPPED") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("the skip list is writable");
        writeln!(file, "{} {test}", needed.name()).expect("the skip list is writable");
    }
    true
}

/// Returns true when the counts of the acceptance list are asked for (`FLUX_TEST_SCALE=full`).
#[must_use]
pub fn full_scale() -> bool {
    std::env::var_os("FLUX_TEST_SCALE").is_some_and(|scale| scale == "full")
}

/// Returns the acceptance list's count, or the smaller one of CI.
#[must_use]
pub fn scaled(full: usize, ci: usize) -> usize {
    if full_scale() { full } else { ci }
}

/// Returns how many processes a test shall kill: `FLUX_TEST_KILLS`, else the acceptance list's 200, or fewer in CI.
///
/// # Panics
/// When `FLUX_TEST_KILLS` is not a number.
#[must_use]
pub fn kills(ci: usize) -> usize {
    match std::env::var("FLUX_TEST_KILLS") {
        Ok(text) => text.parse().expect("FLUX_TEST_KILLS is a number"),
        Err(_) => scaled(200, ci),
    }
}
