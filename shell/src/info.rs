//! What is this job, which of its shells is this one, and which tasks run here?

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use flux_client::{Handle, NODEID_ANY, attr};
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::jobid::{JobId, ascii_f58};
use flux_formats::taskmap::{Taskmap, TaskmapError};
use serde::Deserialize;
use serde_json::Value;

use crate::distribute::{DistributeError, distribute};
use crate::options::{OptionError, Options};
use crate::request::{self, RequestError};
use crate::spec::{Jobspec, Shape, SpecError, System};

/// Largest job description accepted on standard input, in bytes.
const INPUT_MAX: u64 = 256 << 20;

/// Why the job's description cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InfoError {
    /// Standard input is unreadable or too large.
    #[error("reading the job from standard input")]
    Read(#[source] std::io::Error),
    /// The JSON is not as expected.
    #[error("parsing {what}")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The document on standard input is for another job.
    #[error("standard input describes job {found}, not {wanted}")]
    OtherJob {
        /// On standard input.
        found: JobId,
        /// On the command line.
        wanted: JobId,
    },
    /// Whose instance this is cannot be told.
    #[error("asking whose the broker is")]
    Peer(#[source] std::io::Error),
    /// The signed request cannot be run.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is nothing to run.
    #[error("standard input has no jobspec")]
    NoJobspec,
    /// The broker could not be asked.
    #[error("asking the broker for the job")]
    Broker(#[from] flux_client::Error),
    /// The broker's rank is not one of the job's.
    #[error("broker rank {0} is not in R")]
    NotInR(u32),
    /// R is malformed.
    #[error("R: {0}")]
    Resources(&'static str),
    /// The jobspec is malformed.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There are too few cores.
    #[error(transparent)]
    Distribute(#[from] DistributeError),
    /// Tasks cannot be mapped as the `taskmap` option asks.
    #[error("taskmap: {scheme}")]
    Taskmap {
        /// The scheme.
        scheme: &'static str,
        /// What is wrong with its value.
        #[source]
        source: TaskmapError,
    },
    /// The scheme of the `taskmap` option is not known.
    #[error("taskmap: unknown scheme '{0}'")]
    Scheme(String),
    /// A manual map has another number of tasks or nodes than the job.
    #[error("taskmap: map has {map} {what}, the job {job}")]
    MapSize {
        /// "tasks" or "nodes".
        what: &'static str,
        /// In the map.
        map: u64,
        /// In the job.
        job: u64,
    },
    /// A shell option has a wrong value.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// What the broker hands over at the start.
#[derive(Deserialize)]
pub(crate) struct InputDocument {
    id: u64,
    broker_rank: u32,
    /// Ids of the jobs that the instance runs in, from the outermost: `/` or `/ID/ID`.
    #[serde(default)]
    jobid_path: String,
    /// Where this shell says that it runs, before it starts anything: for a broker that comes later.
    #[serde(default)]
    pub(crate) claim: Option<String>,
    #[serde(default)]
    jobspec: Option<Jobspec>,
    #[serde(rename = "R")]
    resources: ResourceSet,
    /// What the user signed.
    #[serde(rename = "J", default)]
    token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ResourceSet {
    execution: Execution,
}

#[derive(Debug, Deserialize)]
struct Execution {
    #[serde(rename = "R_lite")]
    r_lite: Vec<RLite>,
    nodelist: Vec<String>,
    #[serde(default)]
    expiration: f64,
}

#[derive(Debug, Deserialize)]
struct RLite {
    rank: IdSet,
    children: Children,
}

#[derive(Debug, Deserialize, Clone)]
struct Children {
    #[serde(default)]
    core: IdSet,
    #[serde(default)]
    gpu: IdSet,
}

/// One node of the job; its index in [`JobInfo::nodes`] is the rank of its shell.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) broker_rank: u32,
    pub(crate) host: String,
    pub(crate) cores: IdSet,
    pub(crate) gpus: IdSet,
}

/// Everything that is fixed about the job when the shell starts.
#[derive(Debug)]
pub(crate) struct JobInfo {
    pub(crate) id: JobId,
    /// F58, with `ƒ` unless the locale is ASCII.
    pub(crate) id_text: String,
    /// Ids of the jobs around this one, from the outermost.
    pub(crate) jobid_path: String,
    pub(crate) uid: u32,
    pub(crate) shell_rank: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) command: Vec<String>,
    pub(crate) system: System,
    pub(crate) options: Options,
    pub(crate) shape: Shape,
    pub(crate) taskmap: Taskmap,
    /// Ranks of the tasks of this shell, ascending.
    pub(crate) local_tasks: Vec<u32>,
    /// Name of this job's shell service.
    pub(crate) service: String,
    /// End of the allocation in seconds since the epoch; 0 means never.
    pub(crate) expiration: f64,
}

/// Returns the document on standard input, or `None` when there is none.
///
/// # Errors
/// [`InfoError::Read`].
fn read_stdin() -> Result<Option<Vec<u8>>, InfoError> {
    let mut content = Vec::new();
    // Not through `std::io::stdin` itself, whose buffer would stay for the life of the process.
    let file = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(InfoError::Read)?;
    file.take(INPUT_MAX + 1)
        .read_to_end(&mut content)
        .map_err(InfoError::Read)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > INPUT_MAX {
        return Err(InfoError::Read(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(content).filter(|content| content.iter().any(|byte| !byte.is_ascii_whitespace())))
}

fn ask(handle: &mut Handle, id: JobId) -> Result<InputDocument, InfoError> {
    #[derive(Deserialize)]
    struct Lookup {
        jobspec: String,
        #[serde(rename = "R")]
        resources: String,
        #[serde(rename = "J")]
        token: String,
    }
    let request = serde_json::json!({"id": id.0, "keys": ["J", "jobspec", "R"], "flags": 0});
    let lookup = handle.rpc("job-info.lookup", NODEID_ANY, &request)?;
    let rank = attr::get(handle, "rank")?;
    let jobid_path = attr::get(handle, "jobid-path")?;
    let lookup: Lookup = handle.get(&lookup)?;
    let json = |what| move |source| InfoError::Json { what, source };
    Ok(InputDocument {
        id: id.0,
        broker_rank: rank
            .parse()
            .map_err(|_| InfoError::Resources("broker rank is not a number"))?,
        jobid_path,
        claim: None,
        jobspec: Some(serde_json::from_str(&lookup.jobspec).map_err(json("jobspec"))?),
        resources: serde_json::from_str(&lookup.resources).map_err(json("R"))?,
        token: Some(lookup.token),
    })
}

/// Returns the job's description from standard input, if there is one.
///
/// # Errors
/// [`InfoError::Read`], [`InfoError::Json`], [`InfoError::OtherJob`].
pub(crate) fn read_input(id: JobId) -> Result<Option<InputDocument>, InfoError> {
    read_stdin()?.map(|content| parse_input(&content, id)).transpose()
}

fn parse_input(content: &[u8], id: JobId) -> Result<InputDocument, InfoError> {
    let document: InputDocument = serde_json::from_slice(content).map_err(|source| InfoError::Json {
        what: "standard input",
        source,
    })?;
    if document.id == id.0 {
        Ok(document)
    } else {
        Err(InfoError::OtherJob {
            found: JobId(document.id),
            wanted: id,
        })
    }
}

/// Returns what the shell needs to know of the job, asking the broker when standard input did not tell. Of another user's
/// instance it takes the signed request only.
///
/// # Errors
/// Any [`InfoError`].
pub(crate) fn load(
    handle: &mut Handle,
    input: Option<InputDocument>,
    id: JobId,
    uid: u32,
) -> Result<JobInfo, InfoError> {
    let mut document = match input {
        Some(document) => document,
        None => ask(handle, id)?,
    };
    let host = handle.peer_uid().map_err(InfoError::Peer)?;
    if host != uid {
        document.jobspec = Some(request::verified(document.token.as_deref(), uid)?);
    }
    JobInfo::new(document, id, uid)
}

impl JobInfo {
    fn new(document: InputDocument, id: JobId, uid: u32) -> Result<Self, InfoError> {
        let nodes = nodes(&document.resources.execution)?;
        let shell_rank = nodes
            .iter()
            .position(|node| node.broker_rank == document.broker_rank);
        let shell_rank = shell_rank.ok_or(InfoError::NotInR(document.broker_rank))?;
        let shell_rank = u32::try_from(shell_rank).map_err(|_| InfoError::Resources("too many nodes"))?;
        let mut jobspec = document.jobspec.ok_or(InfoError::NoJobspec)?;
        let shape = jobspec.shape()?;
        let command = jobspec.task()?.command.clone();
        let options = Options::new(std::mem::take(&mut jobspec.attributes.system.shell.options));
        let counts = task_counts(&jobspec, &shape, &nodes, &options)?;
        let taskmap = choose_taskmap(&counts, &options, nodes.len())?;
        Ok(JobInfo {
            id,
            id_text: id.f58(ascii_locale()),
            jobid_path: document.jobid_path,
            uid,
            shell_rank,
            local_tasks: taskmap.task_ids(shell_rank).iter().collect(),
            nodes,
            command,
            system: jobspec.attributes.system,
            options,
            shape,
            taskmap,
            service: format!("{uid}-shell-{}", id.f58(true)),
            expiration: document.resources.execution.expiration,
        })
    }

    /// Parses a document as it comes on standard input.
    ///
    /// # Errors
    /// Any [`InfoError`] but those of reading.
    #[cfg(test)]
    pub(crate) fn from_json(text: &str, id: JobId) -> Result<Self, InfoError> {
        JobInfo::new(parse_input(text.as_bytes(), id)?, id, 1000)
    }

    /// Returns the number of shells.
    pub(crate) fn shell_size(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Returns true for the shell that speaks for the job.
    pub(crate) fn is_leader(&self) -> bool {
        self.shell_rank == 0
    }

    /// Returns this shell's node.
    pub(crate) fn node(&self) -> Option<&Node> {
        self.nodes.get(usize::try_from(self.shell_rank).ok()?)
    }

    /// Returns the broker rank of a shell.
    pub(crate) fn broker_rank_of(&self, shell_rank: u32) -> u32 {
        let node = usize::try_from(shell_rank)
            .ok()
            .and_then(|index| self.nodes.get(index));
        node.map_or(NODEID_ANY, |node| node.broker_rank)
    }

    /// Returns true when the job's program is a Flux instance of its own.
    pub(crate) fn is_instance(&self) -> bool {
        let mut words = self.command.iter().map(String::as_str);
        let first = words.next().map(|word| word.rsplit('/').next().unwrap_or(word));
        self.system.batch.is_some()
            || (first == Some("flux") && matches!(words.next(), Some("broker" | "start")))
            || first == Some("flux-broker")
    }
}

fn ascii_locale() -> bool {
    let variable = |name| std::env::var(name).ok();
    let force = std::env::var_os("FLUX_F58_FORCE_ASCII").map(|value| value.to_string_lossy().into_owned());
    let (all, ctype, lang) = (variable("LC_ALL"), variable("LC_CTYPE"), variable("LANG"));
    ascii_f58(
        force.as_deref(),
        all.as_deref(),
        ctype.as_deref(),
        lang.as_deref(),
    )
}

/// Returns the nodes of R in ascending order of broker rank, which is the order of its nodelist.
fn nodes(execution: &Execution) -> Result<Vec<Node>, InfoError> {
    let mut hosts = Hostlist::new();
    for list in &execution.nodelist {
        hosts
            .append(list)
            .map_err(|_| InfoError::Resources("invalid nodelist"))?;
    }
    let mut ranks: Vec<(u32, &Children)> = execution
        .r_lite
        .iter()
        .flat_map(|entry| entry.rank.iter().map(move |rank| (rank, &entry.children)))
        .collect();
    ranks.sort_by_key(|(rank, _)| *rank);
    if ranks
        .windows(2)
        .any(|pair| matches!(pair, [(one, _), (two, _)] if one == two))
    {
        return Err(InfoError::Resources("a rank is listed twice"));
    }
    let mut hosts = hosts.iter();
    let nodes = ranks.into_iter().map(|(broker_rank, children)| Node {
        broker_rank,
        host: hosts.next().unwrap_or_else(|| "localhost".to_owned()),
        cores: children.core.clone(),
        gpus: children.gpu.clone(),
    });
    Ok(nodes.collect())
}

fn core_count(node: &Node) -> u32 {
    u32::try_from(node.cores.count()).unwrap_or(u32::MAX)
}

/// Returns how many tasks each node gets.
fn task_counts(
    jobspec: &Jobspec,
    shape: &Shape,
    nodes: &[Node],
    options: &Options,
) -> Result<Vec<u32>, InfoError> {
    if let Some(kind) = options.text("per-resource.type")? {
        let count = options.number("per-resource.count")?.unwrap_or(1);
        let count = u32::try_from(count).map_err(|_| OptionError {
            name: "per-resource.count".to_owned(),
            value: count.to_string(),
        })?;
        return match kind.as_str() {
            "node" => Ok(vec![count; nodes.len()]),
            "core" => Ok(nodes
                .iter()
                .map(|node| core_count(node).saturating_mul(count))
                .collect()),
            _ => Err(OptionError {
                name: "per-resource.type".to_owned(),
                value: format!("\"{kind}\""),
            }
            .into()),
        };
    }
    let cores: Vec<u32> = nodes.iter().map(core_count).collect();
    let per = shape.cores_per_slot;
    let slots_in = |cores: &u32| {
        let slots = cores.checked_div(per).unwrap_or(0);
        shape.slots_per_node.map_or(slots, |most| slots.min(most))
    };
    let slots: Vec<u32> = cores.iter().map(slots_in).collect();
    let slot_total = slots.iter().fold(0_u32, |sum, slots| sum.saturating_add(*slots));
    let count = &jobspec.task()?.count;
    let slot_count = match shape.slots_per_node {
        Some(_) => slot_total,
        None => shape.slot_count.unwrap_or(slot_total),
    };
    let ntasks = match (count.total, count.per_slot) {
        (Some(total), _) => total,
        (None, Some(per_slot)) if per_slot > 1 => {
            let counts = distribute(&slots, slot_count.min(slot_total), 1)?;
            return Ok(counts
                .into_iter()
                .map(|slots| slots.saturating_mul(per_slot))
                .collect());
        }
        (None, _) => slot_count,
    };
    if ntasks <= slot_total {
        return Ok(distribute(&slots, ntasks, 1)?);
    }
    Ok(distribute(&cores, ntasks, per)?)
}

/// Applies the `taskmap` option.
fn choose_taskmap(counts: &[u32], options: &Options, node_count: usize) -> Result<Taskmap, InfoError> {
    let scheme = options
        .text("taskmap.scheme")?
        .unwrap_or_else(|| "block".to_owned());
    match scheme.as_str() {
        "block" => Taskmap::block(counts).map_err(|source| InfoError::Taskmap {
            scheme: "block",
            source,
        }),
        "cyclic" => {
            let stride = match options.get("taskmap.value") {
                Some(Value::String(text)) if text.is_empty() => 1,
                _ => options.number("taskmap.value")?.unwrap_or(1),
            };
            let stride = u32::try_from(stride).unwrap_or(0);
            Taskmap::cyclic(counts, stride).map_err(|source| InfoError::Taskmap {
                scheme: "cyclic",
                source,
            })
        }
        "manual" => {
            let bad = |source| InfoError::Taskmap {
                scheme: "manual",
                source,
            };
            let taskmap: Taskmap = match options.get("taskmap.value") {
                Some(Value::String(text)) => text.parse().map_err(bad)?,
                Some(other) => Taskmap::from_value(other).map_err(bad)?,
                None => return Err(bad(TaskmapError::Form)),
            };
            let ntasks = counts.iter().map(|count| u64::from(*count)).sum();
            check_size("tasks", u64::from(taskmap.ntasks()), ntasks)?;
            check_size(
                "nodes",
                u64::from(taskmap.nnodes()),
                u64::try_from(node_count).unwrap_or(u64::MAX),
            )?;
            Ok(taskmap)
        }
        _ => Err(InfoError::Scheme(scheme)),
    }
}

fn check_size(what: &'static str, map: u64, job: u64) -> Result<(), InfoError> {
    if map == job {
        Ok(())
    } else {
        Err(InfoError::MapSize { what, map, job })
    }
}

#[cfg(test)]
#[path = "info_tests.rs"]
mod tests;
