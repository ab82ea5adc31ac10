//! The actor behind `content-backing.*`.

use super::blobs::Sweep;
use super::db::{Blob, Db, StoreError};
use super::lane::{Job, Lane, Outcomes, Output, Writer};
use crate::modules::content;
use crate::modules::kvs::blob as node_blob;
use crate::modules::kvs::stats::Series;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Checkpoints kept unless configured otherwise.
const CHECKPOINTS_MAX: usize = 5;
/// Most digests in one mark request.
const MARK_HASHES_MAX: usize = 16_384;
/// Bounds of one sweep request; larger ones are reduced to these.
const SWEEP_DELETE_MAX: i64 = 8192;
const SWEEP_WINDOW_MAX: i64 = 1 << 19;

type Waiter = Box<dyn FnOnce(&mut Cx<'_>, Result<Output, StoreError>)>;

/// The `content-sqlite` module.
pub struct ContentSqlite {
    truncate: bool,
    checkpoints_max: usize,
    durable: bool,
    path: PathBuf,
    pub(super) hash: HashType,
    writer: Option<Lane>,
    reader: Option<Lane>,
    waiters: HashMap<u64, Waiter>,
    next: u64,
    scheduled: bool,
    stopping: bool,
    pub(super) load_time: Series,
    store_time: Series,
}

impl std::fmt::Debug for ContentSqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentSqlite")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct CheckpointPut {
    value: Value,
}

#[derive(Deserialize)]
struct MarkRequest {
    epoch: i64,
    hashes: Vec<BlobRef>,
}

#[derive(Deserialize)]
struct SweepRequest {
    epoch: i64,
    cursor: i64,
    high_water: i64,
    delete_cap: i64,
    window: i64,
}

#[derive(Deserialize)]
struct GcInfoRequest {
    epoch: i64,
    #[serde(default)]
    get_count: bool,
}

impl ContentSqlite {
    /// Returns the module; `args` may hold `truncate` and `max_checkpoints=N`.
    pub fn new(args: &[String]) -> Self {
        let keep = args
            .iter()
            .find_map(|arg| arg.strip_prefix("max_checkpoints=")?.parse().ok());
        ContentSqlite {
            truncate: args.iter().any(|arg| arg == "truncate"),
            checkpoints_max: keep.unwrap_or(CHECKPOINTS_MAX),
            durable: false,
            path: PathBuf::new(),
            hash: HashType::Sha1,
            writer: None,
            reader: None,
            waiters: HashMap::new(),
            next: 0,
            scheduled: false,
            stopping: false,
            load_time: Series::default(),
            store_time: Series::default(),
        }
    }

    /// Takes a job for the writer (`sync` given) or the reader.
    pub(super) fn submit<T: Send + 'static>(
        &mut self,
        cx: &mut Cx<'_>,
        sync: Option<bool>,
        job: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
        done: impl FnOnce(&mut Cx<'_>, Result<T, StoreError>) + 'static,
    ) {
        self.next += 1;
        let id = self.next;
        let lane = if sync.is_some() {
            &mut self.writer
        } else {
            &mut self.reader
        };
        let Some(lane) = lane.as_mut() else {
            done(cx, Err(StoreError::Job("content-sqlite is stopped".into())));
            return;
        };
        let run = Box::new(move |db: &mut Db| job(db).map(|output| Box::new(output) as Output));
        lane.push(Job {
            id,
            sync: sync.unwrap_or(false),
            run,
        });
        let waiter: Waiter = Box::new(move |cx, result| {
            let result = result.and_then(|output| {
                output
                    .downcast::<T>()
                    .map(|output| *output)
                    .map_err(|_| StoreError::Job("wrong output type".into()))
            });
            done(cx, result);
        });
        self.waiters.insert(id, waiter);
        if !self.scheduled {
            self.scheduled = true;
            cx.later(|store: &mut ContentSqlite, _| store.send());
        }
    }

    fn send(&mut self) {
        self.scheduled = false;
        for lane in [&mut self.writer, &mut self.reader].into_iter().flatten() {
            lane.send();
        }
    }

    /// A thread has done a batch.
    pub(super) fn finished(&mut self, cx: &mut Cx<'_>, is_writer: bool, outcomes: Outcomes) {
        let lane = if is_writer {
            &mut self.writer
        } else {
            &mut self.reader
        };
        if let Some(lane) = lane {
            lane.finished();
            lane.send();
        }
        for (id, outcome) in outcomes {
            if let Some(waiter) = self.waiters.remove(&id) {
                waiter(cx, outcome);
            }
        }
        self.stop_when_idle(cx);
    }

    fn stop_when_idle(&mut self, cx: &mut Cx<'_>) {
        let idle = [&self.writer, &self.reader]
            .into_iter()
            .flatten()
            .all(Lane::is_idle);
        if self.stopping && idle {
            self.close();
            cx.stopped();
        }
    }

    fn close(&mut self) {
        for lane in [&mut self.writer, &mut self.reader] {
            if let Some(mut lane) = lane.take() {
                lane.stop();
            }
        }
        if !self.durable {
            remove_files(&self.path);
        }
    }

    fn store(&mut self, cx: &mut Cx<'_>, req: Message) {
        let bytes = req.payload.clone().unwrap_or_default();
        let digest = BlobRef::compute(self.hash, &bytes).digest().to_vec();
        let blob = Blob {
            digest: digest.clone(),
            bytes,
            internal: false,
        };
        let start = Instant::now();
        self.submit(
            cx,
            Some(false),
            move |db| db.store(&blob),
            move |cx, result| {
                cx.to::<ContentSqlite>("content-sqlite", move |store, _| {
                    store.store_time.push(start.elapsed().as_secs_f64() * 1e3);
                });
                match result {
                    Ok(()) => cx.respond_payload(&req, Some(digest.into())),
                    Err(err) => cx.fail_with(&req, &err.into()),
                }
            },
        );
    }

    fn checkpoint_put(&mut self, cx: &mut Cx<'_>, req: Message) -> Result<(), RpcError> {
        let CheckpointPut { value } = req.payload_json()?;
        let keep = self.checkpoints_max;
        let kvs_runs = cx.provides("kvs");
        let job = move |db: &mut Db| {
            let id = db.put_checkpoint(&value, keep)?;
            db.set_epoch(id + 1);
            // while the KVS runs its own roots and journal stay the truth; else this is the next start's root
            if kvs_runs {
                db.set_meta("checkpoint", id)
            } else {
                Ok(())
            }
        };
        self.submit(cx, Some(true), job, move |cx, result| {
            cx.answer_empty(&req, result)
        });
        Ok(())
    }

    fn gc(&mut self, cx: &mut Cx<'_>, req: Message) -> Result<(), RpcError> {
        match req.topic.method() {
            "mark" => {
                let MarkRequest { epoch, hashes } = req.payload_json()?;
                if hashes.len() > MARK_HASHES_MAX {
                    return Err(RpcError::new(
                        errno::EINVAL,
                        format!("mark is limited to {MARK_HASHES_MAX} hashes"),
                    ));
                }
                let job = move |db: &mut Db| mark(db, epoch, hashes);
                self.submit(cx, Some(false), job, move |cx, result| {
                    cx.answer(
                        &req,
                        result
                            .map(|marked| json!({ "marked": marked }))
                            .map_err(RpcError::from),
                    );
                });
            }
            "sweep" => {
                let SweepRequest {
                    epoch,
                    cursor,
                    high_water,
                    delete_cap,
                    window,
                } = req.payload_json()?;
                if delete_cap < 1 || window < 1 {
                    return Err(RpcError::new(
                        errno::EINVAL,
                        "delete_cap and window must be positive",
                    ));
                }
                let (delete_cap, window) = (delete_cap.min(SWEEP_DELETE_MAX), window.min(SWEEP_WINDOW_MAX));
                let sweep = Sweep {
                    epoch,
                    cursor,
                    high_water,
                    delete_cap,
                    window,
                };
                self.submit(
                    cx,
                    Some(false),
                    move |db| db.sweep(&sweep),
                    move |cx, result| {
                        let body =
                            result.map(|(deleted, cursor)| json!({"deleted": deleted, "cursor": cursor}));
                        cx.answer(&req, body.map_err(RpcError::from));
                    },
                );
            }
            _ => {
                let GcInfoRequest { epoch, get_count } = req.payload_json()?;
                let job = move |db: &mut Db| {
                    let high_water = db.high_water()?;
                    let candidates = if get_count {
                        Some(db.count_older(epoch)?)
                    } else {
                        None
                    };
                    Ok((db.epoch(), high_water, candidates))
                };
                self.submit(cx, Some(false), job, move |cx, result| {
                    let body = result.map(|(current, high_water, candidates)| {
                        let mut body = json!({"current_epoch": current, "high_water": high_water});
                        let map = body.as_object_mut();
                        map.zip(candidates)
                            .map(|(map, count)| map.insert("candidates".into(), Value::from(count)));
                        body
                    });
                    cx.answer(&req, body.map_err(RpcError::from));
                });
            }
        }
        Ok(())
    }

    fn stats_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let path = self.path.clone();
        let (load, store) = (series(&self.load_time), series(&self.store_time));
        let synchronous = if self.durable { "FULL" } else { "OFF" };
        let job = move |db: &mut Db| {
            let checkpoints = db.checkpoints()?;
            Ok((db.count()?, checkpoints))
        };
        self.submit(cx, None, job, move |cx, result| {
            let body = result.map(|(count, checkpoints)| {
                let epoch = checkpoints.first().map_or(1, |(id, _)| id + 1);
                let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
                let list: Vec<Value> =
                    checkpoints.into_iter().map(|(id, value)| json!({"id": id, "value": value})).collect();
                json!({
                    "object_count": count, "current_epoch": epoch, "dbfile_size": size, "dbfile_free": free(&path),
                    "load_time": load, "store_time": store,
                    "config": {"journal_mode": "WAL", "synchronous": synchronous}, "checkpoints": list,
                })
            });
            cx.answer(&req, body.map_err(RpcError::from));
        });
    }

    fn handle(&mut self, cx: &mut Cx<'_>, req: Message) -> Result<(), RpcError> {
        match req.topic.as_str() {
            "content-sqlite.stats-get" => self.stats_request(cx, req),
            "content-backing.load" => self.load(cx, req, false),
            "content-backing.store" => self.store(cx, req),
            "content-backing.validate" => self.validate(cx, req, false),
            "content-backing.checkpoint-get" => self.checkpoint_get(cx, req, false),
            "content-backing.checkpoint-put" => self.checkpoint_put(cx, req)?,
            _ => self.gc(cx, req)?,
        }
        Ok(())
    }
}

/// Loads a blob as clients may see it: a directory node of the KVS's own form as RFC 11 object.
pub(super) fn load_explained(db: &mut Db, blobref: BlobRef) -> Result<Option<Vec<u8>>, StoreError> {
    match db.load(blobref.digest())? {
        None => Ok(None),
        Some((bytes, false)) => Ok(Some(bytes)),
        Some((bytes, true)) => {
            let mut read = |blobref: &BlobRef| Ok(db.load(blobref.digest())?.map(|(bytes, _)| bytes));
            node_blob::explain(&bytes, blobref, &mut read).map(Some)
        }
    }
}

/// Marks blobs, and with a directory node of the KVS's own form those below it, which nobody else sees.
/// Returns the number of `hashes` that were there.
fn mark(db: &mut Db, epoch: i64, hashes: Vec<BlobRef>) -> Result<usize, StoreError> {
    let mut count = 0;
    for blobref in hashes {
        let Some(internal) = db.mark(epoch, blobref.digest())? else {
            continue;
        };
        count += 1;
        if !internal {
            continue;
        }
        let Some((bytes, _)) = db.load(blobref.digest())? else {
            continue;
        };
        let mut read = |below: &BlobRef| {
            db.mark(epoch, below.digest())?;
            Ok(db.load(below.digest())?.map(|(bytes, _)| bytes))
        };
        node_blob::explain(&bytes, blobref, &mut read)?;
    }
    Ok(count)
}

fn series(series: &Series) -> Value {
    let (min, max, mean, stddev) = series.figures();
    json!({"count": series.count(), "min": min, "max": max, "mean": mean, "stddev": stddev})
}

fn free(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).map_or(0, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()))
}

fn remove_files(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => tracing::warn!(path = %path.display(), err = %err, "file not removed"),
        }
    }
}

impl Cx<'_> {
    /// Answers a request without payload, or with the store's error.
    fn answer_empty(&mut self, req: &Message, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.respond_empty(req),
            Err(err) => self.fail_with(req, &err.into()),
        }
    }
}

impl Service for ContentSqlite {
    fn interfaces(&self) -> Vec<Interface> {
        const SQLITE: &[Method] = &[Method::user("stats-get")];
        const BACKING: &[Method] = &[
            Method::owner("load"),
            Method::owner("store"),
            Method::owner("validate"),
            Method::owner("checkpoint-get"),
            Method::owner("checkpoint-put"),
            Method::owner("mark"),
            Method::owner("sweep"),
            Method::owner("gc-info"),
        ];
        vec![
            Interface {
                service: "content-sqlite",
                methods: SQLITE,
            },
            Interface {
                service: "content-backing",
                methods: BACKING,
            },
        ]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        if let Some(name) = cx.attrs.get("content.hash") {
            self.hash = name
                .parse()
                .map_err(|_| RpcError::new(errno::EINVAL, "content.hash is unknown"))?;
        }
        let (directory, durable) = match (cx.attrs.get("statedir"), cx.attrs.get("rundir")) {
            (Some(statedir), _) => (statedir, true),
            (None, Some(rundir)) => (rundir, false),
            (None, None) => {
                return Err(RpcError::new(
                    errno::EINVAL,
                    "content-sqlite needs a statedir or a rundir",
                ));
            }
        };
        self.path = Path::new(directory).join("content.sqlite");
        self.durable = durable;
        if self.truncate || !durable {
            remove_files(&self.path);
        }
        let db = Db::open(&self.path, durable)?;
        let reader = Db::open_reader(&self.path)?;
        let failed =
            |err: std::io::Error| RpcError::new(errno::EAGAIN, format!("content-sqlite thread: {err}"));
        let writer = Some(Writer { durable });
        self.writer = Some(Lane::start("content-write", db, cx.mailbox(), writer).map_err(failed)?);
        self.reader = Some(Lane::start("content-read", reader, cx.mailbox(), None).map_err(failed)?);
        content::local::set_backing(cx, Some("content-sqlite"));
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let header = req.clone();
        if let Err(err) = self.handle(cx, req) {
            cx.fail_with(&header, &err);
        }
    }

    fn stats_clear(&mut self, _cx: &mut Cx<'_>) {
        self.load_time = Series::default();
        self.store_time = Series::default();
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        content::local::set_backing(cx, None);
        // calls that were made before the stop are still in the hub's queue
        cx.later(|store: &mut ContentSqlite, cx| {
            store.stopping = true;
            store.send();
            store.stop_when_idle(cx);
        });
        false
    }
}
