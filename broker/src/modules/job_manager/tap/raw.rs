//! What becomes of a plugin that is given as a `.wasm`? `flux-policy-compile` compiles it, once, into a cache of this broker.
//!
//! The compiler is a process of its own, with limits of its own. The broker waits for nothing: it goes on when the compiler has ended, and then
//! loads what it made as it loads every plugin: from a directory, a manifest and a file that it verifies.

use super::super::JobManager;
use super::names::Named;
use crate::service::Cx;
use flux_formats::msg::Message;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Below `statedir`, else below `rundir`.
const CACHE: &str = "policy-cache";
const PROGRAM: &str = "flux-policy-compile";

impl JobManager {
    /// Compiles `wasm`, then loads it.
    pub(super) fn load_raw(
        &mut self,
        cx: &mut Cx<'_>,
        wasm: PathBuf,
        named: Named,
        request: Option<Message>,
        remove: Option<String>,
    ) {
        let dir = cx.attrs.get("statedir").or_else(|| cx.attrs.get("rundir"));
        let Some(cache) = dir.map(|dir| Path::new(dir).join(CACHE)) else {
            return self.load_failed(cx, request.as_ref(), "there is no directory for compiled plugins");
        };
        let mailbox = cx.mailbox::<JobManager>();
        cx.spawn_task(async move {
            let run = tokio::task::spawn_blocking(move || compile(&cache, &wasm)).await;
            let result = run.unwrap_or_else(|err| Err(err.to_string()));
            let done = move |me: &mut JobManager, cx: &mut Cx<'_>| {
                let mut named = named;
                let at_start = request.is_none();
                match result {
                    Ok(dir) => {
                        named.spec.dir = Some(dir);
                        me.load_named(cx, named, request, remove);
                    }
                    Err(why) => {
                        let why = format!("plugin {}: {why}", named.name);
                        me.load_failed(cx, request.as_ref(), &why);
                    }
                }
                if at_start {
                    me.load_queued(cx);
                }
            };
            // the module is gone when nobody takes it
            let _taken = mailbox.post(done).await;
        });
    }
}

/// Runs the compiler; returns the directory of its result.
fn compile(cache: &Path, wasm: &Path) -> Result<PathBuf, String> {
    let program = program();
    let mut option = std::ffi::OsString::from("--cache=");
    option.push(cache);
    let output = Command::new(&program)
        .arg(option)
        .arg(wasm)
        .stdin(Stdio::null())
        .output()
        .map_err(|err| format!("cannot run {}: {err}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("flux-policy-compile: ");
        return Err(match said {
            "" => format!("{PROGRAM} ended with {}", output.status),
            said => format!("cannot be compiled: {}", said.replace('\n', " ")),
        });
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(PathBuf::from(said.trim_end_matches('\n')))
}

/// Returns the compiler: `FLUX_POLICY_COMPILE`, else that of the build tree which this program is in, else the installed one.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("FLUX_POLICY_COMPILE") {
        return program.into();
    }
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(|exe| {
        let dirs = exe.ancestors().skip(1).take(3);
        dirs.flat_map(|dir| [dir.join(PROGRAM), dir.join("wasm/compile/debug").join(PROGRAM)])
            .find(|path| path.is_file())
    });
    beside.unwrap_or_else(|| {
        flux_formats::paths::prefix_of(exe.as_deref())
            .join("libexec/flux")
            .join(PROGRAM)
    })
}
