//! Which resources are there, allocated, down and free? What several listings ask the resource module.

use flux_client::{Error, Handle, Rpc};
use flux_formats::errno::ENOSYS;
use flux_formats::idset::IdSet;
use flux_formats::resource_set::ResourceSet;
use serde::Deserialize;
use serde_json::Value;

use super::error::{CmdError, fail};

/// The resources by state.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct SchedStatus {
    /// Everything.
    #[serde(default)]
    pub(crate) all: ResourceSet,
    /// What cannot be used: offline, drained.
    #[serde(default)]
    pub(crate) down: ResourceSet,
    /// What jobs hold.
    #[serde(default)]
    pub(crate) allocated: ResourceSet,
}

impl SchedStatus {
    /// Queues the question; [`SchedStatus::finish`] takes the answer.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) fn start(handle: &mut Handle) -> Result<Rpc, CmdError> {
        let request = flux_client::Message::request("resource.sched-status", 0, None);
        Ok(handle.rpc_message(request)?)
    }

    /// Waits for the answer; an older instance answers for its scheduler.
    ///
    /// # Errors
    /// Those of the RPC.
    pub(crate) fn finish(handle: &mut Handle, rpc: &Rpc) -> Result<Self, CmdError> {
        match handle.get::<RawStatus>(rpc) {
            Ok(status) => status.decode(),
            Err(err) if err.is_rpc(ENOSYS) => handle
                .call_empty::<RawStatus>("sched.resource-status", flux_client::NODEID_ANY)?
                .decode(),
            Err(err) => Err(err.into()),
        }
    }

    /// Returns what can be allocated.
    pub(crate) fn free(&self) -> ResourceSet {
        self.all.difference(&self.allocated).difference(&self.down)
    }

    /// Returns what is not down.
    pub(crate) fn up(&self) -> ResourceSet {
        self.all.difference(&self.down)
    }

    /// Returns the resources of a state by its name.
    pub(crate) fn state(&self, name: &str) -> Option<ResourceSet> {
        Some(match name {
            "all" => self.all.clone(),
            "down" => self.down.clone(),
            "allocated" => self.allocated.clone(),
            "free" => self.free(),
            "up" => self.up(),
            _ => return None,
        })
    }

    /// Keeps only some ranks.
    pub(crate) fn restrict(&mut self, ranks: &IdSet) {
        for set in [&mut self.all, &mut self.down, &mut self.allocated] {
            *set = set.copy_ranks(&set.ranks().intersection(ranks));
        }
    }
}

#[derive(Deserialize)]
struct RawStatus {
    all: Option<Value>,
    down: Option<Value>,
    allocated: Option<Value>,
}

impl RawStatus {
    fn decode(self) -> Result<SchedStatus, CmdError> {
        let set = |name: &str, value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(ResourceSet::new()),
            Some(value) => {
                ResourceSet::from_value(&value).or_else(|err| fail(format!("resource status: {name}: {err}")))
            }
        };
        Ok(SchedStatus {
            all: set("all", self.all)?,
            down: set("down", self.down)?,
            allocated: set("allocated", self.allocated)?,
        })
    }
}

/// Reads targets given as an idset of ranks or a hostlist.
///
/// # Errors
/// When a host is not in `all`, or the text is neither.
pub(crate) fn ranks_of(text: &str, all: &ResourceSet) -> Result<IdSet, CmdError> {
    if let Ok(ranks) = text.parse::<IdSet>() {
        return Ok(ranks);
    }
    let Ok(hosts) = text.parse() else {
        return fail(format!("invalid idset or hostlist '{text}'"));
    };
    match all.ranks_of_hosts(&hosts) {
        Ok(ranks) if !ranks.is_empty() => Ok(ranks),
        Ok(_) => fail(format!("{text}: no such host")),
        Err(err) => fail(format!("{text}: {err}")),
    }
}

/// The configured queues and the properties they require.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queues {
    /// Name and required properties.
    pub(crate) queues: Vec<(String, Vec<String>)>,
    /// The whole configuration.
    pub(crate) config: Value,
}

impl Queues {
    /// Asks for the configuration; without one there are no queues.
    ///
    /// # Errors
    /// Those of the RPC but ENOSYS.
    pub(crate) fn fetch(handle: &mut Handle) -> Result<Self, CmdError> {
        match handle.call_empty::<Value>("config.get", flux_client::NODEID_ANY) {
            Ok(config) => Ok(Queues::from_config(config)),
            Err(Error::Rpc(err)) if err.errnum == ENOSYS => Ok(Queues::default()),
            Err(err) => Err(err.into()),
        }
    }

    /// Reads the queues of a configuration.
    pub(crate) fn from_config(config: Value) -> Self {
        let mut queues = Vec::new();
        if let Some(table) = config.get("queues").and_then(Value::as_object) {
            for (name, queue) in table {
                let requires = queue.get("requires").and_then(Value::as_array);
                let requires = requires
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned);
                queues.push((name.clone(), requires.collect()));
            }
        }
        Queues { queues, config }
    }

    /// Returns the ranks of `set` that a queue may use.
    pub(crate) fn ranks(&self, name: &str, set: &ResourceSet) -> Option<IdSet> {
        let (_, requires) = self.queues.iter().find(|(known, _)| known == name)?;
        let mut ranks = set.ranks();
        for property in requires {
            ranks = ranks.intersection(set.property_ranks(property).unwrap_or(&IdSet::new()));
        }
        Some(ranks)
    }

    /// Returns the names of the queues that may use a rank.
    pub(crate) fn of_rank(&self, set: &ResourceSet, rank: u32) -> Vec<&str> {
        let usable =
            |requires: &Vec<String>| requires.iter().all(|property| set.has_property(rank, property));
        self.queues
            .iter()
            .filter(|(_, requires)| usable(requires))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Returns true for a property that only says which queue a node is in.
    pub(crate) fn is_queue_property(&self, property: &str) -> bool {
        self.queues
            .iter()
            .any(|(_, requires)| requires.iter().any(|required| required == property))
    }
}
