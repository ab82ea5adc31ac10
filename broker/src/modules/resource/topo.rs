//! What does hwloc say of this host? Its XML, asked for only when somebody wants it (`resource.topo-get`).
//!
//! hwloc runs in a program of its own: the broker stays small and starts fast, and a plugin of hwloc that
//! crashes or hangs cannot hurt it. `FLUX_HWLOC_XMLFILE` names a file to be used instead.

use super::Resource;
use crate::service::{Cx, RpcError};
use crate::sys::async_fd::register;
use flux_formats::errno;
use flux_formats::msg::{Message, string_payload};
use flux_process::Command;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::Interest;

/// Name of the program that prints the XML.
const HELPER: &str = "flux-hwloc-xml";
/// Largest XML accepted, in bytes.
const XML_MAX: usize = 64 << 20;
/// How long the program may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// The XML of this host, once known.
#[derive(Debug, Default)]
pub(super) struct Topo {
    xml: Option<bytes::Bytes>,
    running: bool,
    waiting: Vec<Message>,
}

impl Resource {
    /// Answers `resource.topo-get`.
    pub(super) fn on_topo_get(&mut self, cx: &mut Cx<'_>, request: Message) {
        if let Some(xml) = &self.topo.xml {
            cx.respond_payload(&request, Some(xml.clone()));
            return;
        }
        self.topo.waiting.push(request);
        if self.topo.running {
            return;
        }
        self.topo.running = true;
        let restrict = !self.config.norestrict;
        cx.spawn(fetch(restrict), |me: &mut Resource, cx, result| {
            me.on_topo(cx, result)
        });
    }

    fn on_topo(&mut self, cx: &mut Cx<'_>, result: Result<String, RpcError>) {
        self.topo.running = false;
        let waiting = std::mem::take(&mut self.topo.waiting);
        match result {
            Ok(xml) => {
                let xml = string_payload(&xml);
                for request in &waiting {
                    cx.respond_payload(request, Some(xml.clone()));
                }
                self.topo.xml = Some(xml);
            }
            Err(err) => {
                for request in &waiting {
                    cx.fail_with(request, &err);
                }
            }
        }
    }
}

fn failed(errnum: u32, text: String) -> RpcError {
    RpcError::new(errnum, text)
}

/// Returns where the program is: beside this one, else where it was installed.
fn helper() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(HELPER)));
    match beside.filter(|path| path.exists()) {
        Some(path) => path,
        None => PathBuf::from(flux_formats::paths::libexecdir()).join(HELPER),
    }
}

async fn fetch(restrict: bool) -> Result<String, RpcError> {
    if let Some(path) = std::env::var_os("FLUX_HWLOC_XMLFILE") {
        return std::fs::read_to_string(&path)
            .map_err(|err| failed(errno::ENOENT, format!("{}: {err}", path.to_string_lossy())));
    }
    let path = helper();
    let name = path.display().to_string();
    let oops = |err: &dyn std::fmt::Display| failed(errno::EIO, format!("{name}: {err}"));
    let file = memfd_create(c"hwloc-xml", MFdFlags::MFD_CLOEXEC).map_err(|err| oops(&err))?;
    let output = file.try_clone().map_err(|err| oops(&err))?;
    let mut command = Command::new(path);
    if !restrict {
        command.arg("--norestrict");
    }
    command.null(0).fd(1, output);
    let child = command.spawn().map_err(|err| {
        let errnum = u32::try_from(err.errnum()).unwrap_or(errno::EIO);
        failed(errnum, format!("{err}: {}", errno::strerror(errnum)))
    })?;
    let (_, pidfd) = child.into_parts();
    let pidfd = register(pidfd, Interest::READABLE).map_err(|err| oops(&err))?;
    let ended = tokio::time::timeout(HELPER_TIMEOUT, pidfd.readable()).await;
    if ended.is_err() {
        // a hwloc plugin that hangs is killed; reaping follows at once
        let killed = pidfd.get_ref().send_signal(flux_process::Signal::SIGKILL);
        killed.map_err(|err| oops(&err))?;
    }
    let status = pidfd.get_ref().wait().map_err(|err| oops(&err))?;
    if !status.success() {
        return Err(oops(&format!("ended with exit code {}", status.exit_code())));
    }
    read_xml(file).map_err(|err| oops(&err))
}

fn read_xml(file: OwnedFd) -> std::io::Result<String> {
    use std::io::Seek;
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    let bytes = flux_process::read_all_at(file.into(), XML_MAX)?;
    String::from_utf8(bytes).map_err(|_| std::io::ErrorKind::InvalidData.into())
}
