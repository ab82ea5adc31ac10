//! How is the shell of a job started on this node, and how is its end noticed?
//!
//! The execution service sends one request per rank: a line of JSON ([`StartHeader`]) and the tail of the
//! shell's input document, the same bytes for all ranks. The shell gets the document as a sealed memory file
//! on standard input; its standard output and error go to a memory file of their own that is read when it ends.
//! Nothing of the shell hangs on a pipe to this broker.
//!
//! An IMP gets `{"J":…,"options":{}}` on the first line, and leaves the rest to the shell: the same document, with J in
//! it and without a jobspec, since a shell that runs for another user believes nothing but what that user signed.
//!
//! ```text
//! job-exec-agent.start ──> {}             the shell runs
//!                      ──> error ENODATA  it ended; the text is JSON: {status?, output?}
//!                      ──> other errors   it could not be started
//! job-exec-agent.attach   the same for a shell that runs already; ENOENT when there is none, and none may start
//! ```
//!
//! What happens on the node is in `shells`.

use super::Rexec;
use super::shells::{Deliver, Reply};
use crate::service::{Cx, RpcError, Service};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{Message, Topic};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;

/// Service name of the agent.
pub const SERVICE: &str = "job-exec-agent";
/// Where shells start; tasks change to the job's own directory.
pub const DEFAULT_CWD: &str = "/tmp";

/// First line of a start request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartHeader {
    /// The job.
    pub id: JobId,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The shell outlives this broker and finds the next one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outlives: bool,
    /// The signed request: the program is an IMP, which starts the shell as the user who signed.
    #[serde(rename = "J", default, skip_serializing_if = "Option::is_none")]
    pub j: Option<String>,
}

/// Attach request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The job.
    pub id: JobId,
}

/// Kill request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KillRequest {
    /// The job.
    pub id: JobId,
    /// Signal number.
    pub signum: i32,
}

/// How a shell ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShellEnd {
    /// Wait status; `None` when this broker did not start it and cannot know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// What it wrote to its standard output and error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What the agent says of one shell.
#[derive(Clone, Debug)]
pub enum ShellReport {
    /// It runs.
    Started,
    /// It ended; nothing follows.
    Ended(ShellEnd),
    /// It could not be started, or the node is lost; nothing follows.
    Failed(RpcError),
}

/// Builds the body of start requests from the header and the document without its first members.
///
/// # Errors
/// Those of `serde_json`.
pub fn start_body(header: &StartHeader, rest: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut body = Vec::with_capacity(8192);
    serde_json::to_writer(&mut body, header)?;
    body.push(b'\n');
    serde_json::to_writer(&mut body, rest)?;
    Ok(Bytes::from(body))
}

/// Returns how reports reach a service of this broker.
fn deliver_to<S: Service>(
    cx: &Cx<'_>,
    each: impl FnMut(&mut S, &mut Cx<'_>, ShellReport) + 'static,
) -> Deliver {
    let slot = cx.slot();
    let each = Rc::new(RefCell::new(each));
    Box::new(move |cx, report| {
        let each = each.clone();
        cx.to_slot::<S>(slot, move |me, cx| {
            // never entered twice: the hub runs one call at a time
            if let Ok(mut each) = each.try_borrow_mut() {
                each(me, cx, report);
            }
        });
    })
}

/// Calls the agent of this rank; without one `deliver` is told so.
fn call_local(
    cx: &mut Cx<'_>,
    mut deliver: Deliver,
    call: impl FnOnce(&mut Rexec, &mut Cx<'_>, Reply) + 'static,
) {
    if cx.provides(SERVICE) {
        cx.to::<Rexec>(SERVICE, move |me, cx| call(me, cx, Reply::Local(deliver)));
    } else {
        deliver(cx, ShellReport::Failed(RpcError::bare(errno::ENOSYS)));
    }
}

/// Calls the agent of another rank. Losing the node is a failure with EHOSTUNREACH.
fn call_remote<S: Service>(
    cx: &mut Cx<'_>,
    request: Message,
    mut each: impl FnMut(&mut S, &mut Cx<'_>, ShellReport) + 'static,
) {
    cx.rpc_stream(request, move |me: &mut S, cx, result| {
        let report = match result {
            Ok(_) => ShellReport::Started,
            Err(err) if err.errnum == errno::ENODATA => {
                ShellReport::Ended(serde_json::from_str(&err.text).unwrap_or_default())
            }
            Err(err) => ShellReport::Failed(err),
        };
        each(me, cx, report);
    });
}

/// Starts a shell on a rank; `each` gets its reports.
pub fn start<S: Service>(
    cx: &mut Cx<'_>,
    rank: u32,
    body: Bytes,
    each: impl FnMut(&mut S, &mut Cx<'_>, ShellReport) + 'static,
) {
    if rank == cx.rank() {
        let deliver = deliver_to(cx, each);
        call_local(cx, deliver, move |me, cx, reply| me.start_shell(cx, &body, reply));
    } else {
        let topic = Topic::from_static("job-exec-agent.start");
        call_remote(cx, Message::request(topic, rank, Some(body)), each);
    }
}

/// Finds the shell of a job that was started before; `each` gets its reports.
pub fn attach<S: Service>(
    cx: &mut Cx<'_>,
    rank: u32,
    id: JobId,
    each: impl FnMut(&mut S, &mut Cx<'_>, ShellReport) + 'static,
) {
    if rank == cx.rank() {
        let deliver = deliver_to(cx, each);
        call_local(cx, deliver, move |me, cx, reply| me.attach_shell(cx, id, reply));
    } else {
        let request = cx.request("job-exec-agent.attach", rank, &AttachRequest { id });
        call_remote(cx, request, each);
    }
}

/// Kills the shells that outlive their broker as well, when this one leaves: an administrator takes the node out.
pub fn take_shells_along(cx: &mut Cx<'_>) {
    if cx.provides(SERVICE) {
        cx.to::<Rexec>(SERVICE, |me, _| me.take_shells_along());
    }
}

/// Sends a signal to the shell of a job on a rank. A shell that is gone is no error.
pub fn kill(cx: &mut Cx<'_>, rank: u32, id: JobId, signum: i32) {
    if rank == cx.rank() {
        cx.to::<Rexec>(SERVICE, move |me, cx| me.kill_shell(cx, id, signum));
        return;
    }
    let req = cx.request("job-exec-agent.kill", rank, &KillRequest { id, signum });
    cx.notify(req);
}
