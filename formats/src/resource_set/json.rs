//! How is an R written in JSON? (RFC 20; key order as flux-core writes it.)

use serde::de::Error;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Children, Group, ResourceSet, ResourceSetError};
use crate::hostlist::Hostlist;
use crate::idset::IdSet;

#[derive(Deserialize)]
struct Document {
    version: i64,
    execution: Execution,
    #[serde(default)]
    scheduling: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Execution {
    #[serde(rename = "R_lite")]
    r_lite: Option<Vec<Entry>>,
    #[serde(default)]
    nodelist: Vec<Hostlist>,
    #[serde(default)]
    properties: Option<Map<String, Value>>,
    #[serde(default)]
    nslots: Option<u32>,
    #[serde(default)]
    starttime: f64,
    #[serde(default)]
    expiration: f64,
}

#[derive(Deserialize)]
struct Entry {
    rank: IdSet,
    children: EntryChildren,
}

#[derive(Deserialize)]
struct EntryChildren {
    #[serde(default)]
    core: IdSet,
    #[serde(default)]
    gpu: IdSet,
}

impl ResourceSet {
    /// Decodes JSON text.
    ///
    /// # Errors
    /// Any [`ResourceSetError`].
    pub fn decode(text: &[u8]) -> Result<Self, ResourceSetError> {
        ResourceSet::from_document(serde_json::from_slice(text)?)
    }

    /// Decodes a JSON value.
    ///
    /// # Errors
    /// Any [`ResourceSetError`].
    pub fn from_value(json: &Value) -> Result<Self, ResourceSetError> {
        ResourceSet::from_document(Document::deserialize(json)?)
    }

    fn from_document(document: Document) -> Result<Self, ResourceSetError> {
        if document.version != 1 {
            return Err(ResourceSetError::Version(document.version));
        }
        let execution = document.execution;
        let mut groups = Vec::new();
        for entry in execution.r_lite.unwrap_or_default() {
            if entry.rank.is_empty() {
                return Err(ResourceSetError::NoRank);
            }
            let EntryChildren { core, gpu } = entry.children;
            groups.push(Group {
                ranks: entry.rank,
                children: Children { core, gpu },
            });
        }
        let mut nodelist = Hostlist::new();
        execution
            .nodelist
            .iter()
            .for_each(|hosts| nodelist.append_list(hosts));
        let mut set = ResourceSet::from_groups(groups, nodelist)?;
        set.starttime = execution.starttime;
        set.expiration = execution.expiration;
        set.nslots = execution.nslots.unwrap_or(0);
        set.scheduling = document.scheduling;
        for (name, ranks) in execution.properties.into_iter().flatten() {
            set.add_property(&name, &IdSet::deserialize(ranks)?)?;
        }
        Ok(set)
    }

    /// Returns compact JSON text.
    pub fn encode(&self) -> String {
        // A set holds nothing that JSON refuses: keys are strings and times were checked by JSON or are numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the JSON value.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for ResourceSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("execution", &ExecutionOut(self))?;
        if let Some(scheduling) = &self.scheduling {
            map.serialize_entry("scheduling", scheduling)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ResourceSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ResourceSet::from_document(Document::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

struct ExecutionOut<'a>(&'a ResourceSet);

impl Serialize for ExecutionOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let set = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("R_lite", &GroupsOut(&set.groups))?;
        map.serialize_entry("starttime", &set.starttime)?;
        map.serialize_entry("expiration", &set.expiration)?;
        if set.nslots > 0 {
            map.serialize_entry("nslots", &set.nslots)?;
        }
        if !set.nodelist.is_empty() || set.groups.is_empty() {
            map.serialize_entry("nodelist", std::slice::from_ref(&set.nodelist))?;
        }
        if !set.properties.is_empty() {
            map.serialize_entry("properties", &PropertiesOut(&set.properties))?;
        }
        map.end()
    }
}

struct GroupsOut<'a>(&'a [Group]);

impl Serialize for GroupsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct GroupOut<'a> {
            rank: &'a IdSet,
            children: ChildrenOut<'a>,
        }
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for group in self.0 {
            seq.serialize_element(&GroupOut {
                rank: &group.ranks,
                children: ChildrenOut(&group.children),
            })?;
        }
        seq.end()
    }
}

struct ChildrenOut<'a>(&'a Children);

impl Serialize for ChildrenOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Children { core, gpu } = self.0;
        let mut map = serializer.serialize_map(None)?;
        if !gpu.is_empty() {
            map.serialize_entry("gpu", gpu)?;
        }
        if !core.is_empty() || gpu.is_empty() {
            map.serialize_entry("core", core)?;
        }
        map.end()
    }
}

struct PropertiesOut<'a>(&'a [(String, IdSet)]);

impl Serialize for PropertiesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, ranks)| (name, ranks)))
    }
}
