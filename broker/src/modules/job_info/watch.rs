//! How is an eventlog followed across its homes? From the guest namespace to the job's directory.
//!
//! ```text
//! eventlog        job directory ── "clean" ──> end
//! guest.PATH      guest namespace (waited for) ── removed, or the job is inactive ──> rest from the job
//!                 directory ──> end
//! ```

use super::JobInfo;
use crate::modules::job_manager::api as manager;
use crate::modules::kvs::local as kvs;
use crate::modules::kvs_watch::local::{self as kvs_watch, WatchId};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_info::{self as rpc, EventlogWatchResponse};
use std::borrow::Cow;
use std::collections::HashMap;

/// One followed eventlog.
#[derive(Debug)]
struct Watch {
    request: Message,
    id: JobId,
    /// Key below `guest`, `None` for the main eventlog.
    guest: Option<String>,
    flags: u32,
    /// Watch in the KVS, while there is one.
    kvs: Option<WatchId>,
    /// Bytes sent so far.
    sent: usize,
    /// The sentinel has been sent.
    sentinel: bool,
}

/// Sender and matchtag of a request.
type Asker = (Option<Bytes>, u32);

/// All followed eventlogs.
#[derive(Debug, Default)]
pub(super) struct Watches {
    next: u64,
    by_number: HashMap<u64, Watch>,
    /// A job that ends is not to cost more when many others are followed.
    by_job: HashMap<JobId, Vec<u64>>,
    by_asker: HashMap<Asker, u64>,
}

impl Watches {
    /// Returns the number of watches of main and guest eventlogs.
    pub(super) fn counts(&self) -> (usize, usize) {
        let guests = self
            .by_number
            .values()
            .filter(|watch| watch.guest.is_some())
            .count();
        (self.by_number.len() - guests, guests)
    }

    fn insert(&mut self, watch: Watch) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_job.entry(watch.id).or_default().push(number);
        self.by_asker.insert(watch.asker(), number);
        self.by_number.insert(number, watch);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Watch> {
        let watch = self.by_number.remove(&number)?;
        if let Some(numbers) = self.by_job.get_mut(&watch.id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_job.remove(&watch.id);
            }
        }
        let asker = watch.asker();
        if self.by_asker.get(&asker) == Some(&number) {
            self.by_asker.remove(&asker);
        }
        Some(watch)
    }

    fn of_job(&self, id: JobId) -> Vec<u64> {
        self.by_job.get(&id).cloned().unwrap_or_default()
    }
}

impl Watch {
    fn asker(&self) -> Asker {
        (self.request.sender().cloned(), self.request.matchtag())
    }

    /// Sends complete lines; returns true when the last event of a main eventlog was among them.
    fn send(&mut self, cx: &mut Cx<'_>, data: &[u8]) -> bool {
        let mut last = false;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            self.sent += line.len();
            let text = String::from_utf8_lossy(line);
            last = self.guest.is_none() && text.contains("\"name\":\"clean\"");
            cx.respond(
                &self.request,
                &EventlogWatchResponse {
                    event: Cow::Borrowed(&text),
                },
            );
        }
        if self.flags & rpc::WATCH_INITIAL_SENTINEL != 0 && !self.sentinel {
            self.sentinel = true;
            cx.respond_empty(&self.request);
        }
        last
    }
}

impl JobInfo {
    pub(super) fn on_watch(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let Some(body) = cx.decode::<rpc::EventlogWatchRequest>(&req) else {
            return;
        };
        let known = rpc::WATCH_WAITCREATE | rpc::WATCH_INITIAL_SENTINEL;
        if body.flags & !known != 0 {
            cx.fail(
                &req,
                errno::EPROTO,
                &format!("eventlog-watch request rejected with invalid flag {}", body.flags),
            );
            return;
        }
        self.authorize(cx, req, body.id, move |me, cx, req| me.start_watch(cx, req, body));
    }

    fn start_watch(&mut self, cx: &mut Cx<'_>, mut req: Message, body: rpc::EventlogWatchRequest) {
        req.payload = None;
        let guest = body.path.strip_prefix("guest.").map(str::to_owned);
        let is_guest = guest.is_some();
        let watch = Watch {
            request: req,
            id: body.id,
            guest,
            flags: body.flags,
            kvs: None,
            sent: 0,
            sentinel: false,
        };
        let number = self.watches.insert(watch);
        if is_guest {
            // in the table already: a job that ends meanwhile is noticed
            if cx.provides(manager::SERVICE) {
                manager::active_job(cx, body.id, move |me: &mut JobInfo, cx, job| match job {
                    Some(_) => me.watch_namespace(cx, number),
                    None => me.read_rest(cx, number),
                });
            } else {
                self.read_rest(cx, number);
            }
            return;
        }
        let wait = body.flags & rpc::WATCH_WAITCREATE != 0;
        let key = body.id.kvs_key(&body.path);
        let each = move |me: &mut JobInfo, cx: &mut Cx<'_>, data| me.on_data(cx, number, data);
        let kvs = kvs_watch::watch_appends(cx, "primary", &key, wait, each);
        self.set_kvs(number, kvs);
    }

    fn set_kvs(&mut self, number: u64, kvs: WatchId) {
        if let Some(watch) = self.watches.by_number.get_mut(&number) {
            watch.kvs = Some(kvs);
        }
    }

    fn watch_namespace(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(watch) = self.watches.by_number.get(&number) else {
            return;
        };
        let key = watch.guest.clone().unwrap_or_default();
        let each = move |me: &mut JobInfo, cx: &mut Cx<'_>, data| me.on_data(cx, number, data);
        let kvs = kvs_watch::watch_appends(cx, &watch.id.guest_namespace(), &key, true, each);
        self.set_kvs(number, kvs);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, number: u64, data: Result<Bytes, RpcError>) {
        let Some(watch) = self.watches.by_number.get_mut(&number) else {
            return;
        };
        match data {
            Ok(data) => {
                if watch.send(cx, &data) {
                    self.end(cx, number, &RpcError::bare(errno::ENODATA));
                }
            }
            // the namespace moved into the job's directory, perhaps with more than the watch had seen
            Err(err) if err.errnum == errno::ENOTSUP && watch.guest.is_some() => {
                watch.kvs = None;
                self.read_rest(cx, number);
            }
            // its job has become inactive: what the watch has not seen yet is on its way from the job's directory
            Err(err) if err.errnum == errno::ENODATA && watch.guest.is_some() && watch.kvs.is_none() => {}
            Err(err) => {
                watch.kvs = None;
                self.end(cx, number, &err);
            }
        }
    }

    /// Reads what was not sent yet from the job's directory, and ends.
    fn read_rest(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(watch) = self.watches.by_number.get(&number) else {
            return;
        };
        let key = format!("guest.{}", watch.guest.as_deref().unwrap_or_default());
        kvs::lookup(
            cx,
            "primary",
            &watch.id.kvs_key(&key),
            move |me: &mut JobInfo, cx, result| {
                let Some(watch) = me.watches.by_number.get_mut(&number) else {
                    return;
                };
                let end = match result {
                    Ok(data) => {
                        let sent = watch.sent;
                        watch.send(cx, data.get(sent..).unwrap_or_default());
                        RpcError::bare(errno::ENODATA)
                    }
                    Err(_) if watch.sent > 0 => RpcError::bare(errno::ENODATA),
                    // a link to a namespace that is gone
                    Err(err) if matches!(err.errnum, errno::ENOTSUP | errno::ENOENT) => {
                        me.end_missing(cx, number);
                        return;
                    }
                    Err(err) => err,
                };
                me.end(cx, number, &end);
            },
        );
    }

    /// Ends the watch of a guest eventlog that does not exist: a job that never started has just no events.
    fn end_missing(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(watch) = self.watches.by_number.get(&number) else {
            return;
        };
        let key = watch.id.kvs_key("guest");
        kvs::lookup(cx, "primary", &key, move |me: &mut JobInfo, cx, guest| {
            let never_started = guest.is_err_and(|err| err.errnum == errno::ENOENT);
            let errnum = if never_started {
                errno::ENODATA
            } else {
                errno::ENOENT
            };
            me.end(cx, number, &RpcError::bare(errnum));
        });
    }

    /// A job is inactive: what still waits for its namespace waits in vain.
    pub(super) fn job_inactive(&mut self, cx: &mut Cx<'_>, id: JobId) {
        for number in self.watches.of_job(id) {
            let Some(watch) = self.watches.by_number.get_mut(&number) else {
                continue;
            };
            if watch.guest.is_none() {
                continue;
            }
            if let Some(kvs) = watch.kvs.take() {
                kvs_watch::cancel_watch(cx, kvs);
            }
            self.read_rest(cx, number);
        }
    }

    fn end(&mut self, cx: &mut Cx<'_>, number: u64, err: &RpcError) {
        let Some(mut watch) = self.watches.remove(number) else {
            return;
        };
        if let Some(kvs) = watch.kvs.take() {
            kvs_watch::cancel_watch(cx, kvs);
        }
        cx.fail_with(&watch.request, err);
    }

    pub(super) fn on_watch_cancel(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Ok(body) = req.payload_json::<rpc::CancelRequest>() else {
            return;
        };
        let asker = (req.sender().cloned(), body.matchtag);
        if let Some(number) = self.watches.by_asker.get(&asker).copied() {
            self.end(cx, number, &RpcError::bare(errno::ENODATA));
        }
    }

    pub(super) fn drop_watches(&mut self, cx: &mut Cx<'_>, sender: Option<&Bytes>) {
        let gone: Vec<u64> = self
            .watches
            .by_number
            .iter()
            .filter(|(_, watch)| watch.request.sender() == sender)
            .map(|(number, _)| *number)
            .collect();
        for watch in gone.into_iter().filter_map(|number| self.watches.remove(number)) {
            if let Some(kvs) = watch.kvs {
                kvs_watch::cancel_watch(cx, kvs);
            }
        }
    }
}
