//! How are task maps written as text: JSON, raw and PMI?

use std::fmt::Write;
use std::str::FromStr;

use super::{Block, Taskmap, TaskmapError};
use crate::idset::IdSet;

/// Most map blocks of a PMI mapping; longer ones fit no KVS value.
const PMI_BLOCKS_MAX: u32 = 4096;

/// A way to write a map; the names are those of `flux job taskmap --to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON array.
    Taskmap,
    /// JSON object with `version` and `map`.
    Wrapped,
    /// Idsets of tasks by node, between semicolons.
    Raw,
    /// `(vector,(nodeid,nnodes,ppn),...)`.
    Pmi,
    /// A line `taskid: nodeid` for each task.
    Multiline,
}

impl Taskmap {
    /// Writes the map.
    ///
    /// # Errors
    /// [`TaskmapError::Form`] for the unknown map in raw and multiline form, and too many blocks in PMI form.
    pub fn encode(&self, form: Form) -> Result<String, TaskmapError> {
        match form {
            Form::Taskmap => Ok(self.to_value().to_string()),
            Form::Wrapped => Ok(self.to_wrapped_value().to_string()),
            Form::Raw | Form::Multiline if self.is_unknown() => Err(TaskmapError::Form),
            Form::Raw => Ok(self.raw()),
            Form::Pmi => self.pmi(),
            Form::Multiline => {
                let mut out = String::new();
                for taskid in 0..self.ntasks() {
                    let nodeid = self.nodeid(taskid).unwrap_or(0);
                    // a String never refuses
                    let _written = writeln!(out, "{taskid}: {nodeid}");
                }
                Ok(out)
            }
        }
    }

    /// Returns the value of `PMI_process_mapping`: "" when the mapping is unknown or longer than `size_max` bytes.
    pub fn pmi_process_mapping(&self, size_max: usize) -> String {
        match self.pmi() {
            Ok(text) if !self.is_unknown() && text.len() <= size_max => text,
            _ => String::new(),
        }
    }

    fn raw(&self) -> String {
        let mut out = String::new();
        for nodeid in 0..self.nnodes() {
            if nodeid > 0 {
                out.push(';');
            }
            let _written = write!(out, "{}", self.task_ids(nodeid));
        }
        out
    }

    fn pmi(&self) -> Result<String, TaskmapError> {
        let repeats = self
            .blocks
            .iter()
            .fold(0u32, |sum, block| sum.saturating_add(block.repeat));
        if repeats > PMI_BLOCKS_MAX {
            return Err(TaskmapError::Form);
        }
        let mut out = String::from("(vector");
        for block in &self.blocks {
            for _pass in 0..block.repeat {
                let _written = write!(out, ",({},{},{})", block.nodeid, block.nnodes, block.ppn);
            }
        }
        out.push(')');
        Ok(out)
    }

    /// Reads the PMI form; "" and `(vector)` are the unknown map.
    ///
    /// # Errors
    /// [`TaskmapError::Pmi`] and those of blocks.
    pub fn from_pmi(text: &str) -> Result<Self, TaskmapError> {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if compact.is_empty() {
            return Ok(Taskmap::unknown());
        }
        let body = compact
            .strip_prefix("(vector")
            .and_then(|body| body.strip_suffix(')'));
        let mut body = body.ok_or(TaskmapError::Pmi)?;
        let mut blocks: Vec<Block> = Vec::new();
        while !body.is_empty() {
            let (block, rest) = body
                .strip_prefix(",(")
                .and_then(|body| body.split_once(')'))
                .ok_or(TaskmapError::Pmi)?;
            body = rest;
            let mut numbers = block
                .split(',')
                .map(|n| n.parse::<u32>().map_err(|_| TaskmapError::Pmi));
            let mut next = || numbers.next().unwrap_or(Err(TaskmapError::Pmi));
            let block = Block {
                nodeid: next()?,
                nnodes: next()?,
                ppn: next()?,
                repeat: 1,
            };
            if numbers.next().is_some() {
                return Err(TaskmapError::Pmi);
            }
            match blocks.last_mut() {
                Some(last)
                    if (last.nodeid, last.nnodes, last.ppn) == (block.nodeid, block.nnodes, block.ppn) =>
                {
                    last.repeat = last.repeat.saturating_add(1);
                }
                _ => blocks.push(block),
            }
        }
        Taskmap::from_blocks(blocks)
    }
}

impl FromStr for Taskmap {
    type Err = TaskmapError;

    /// Reads any form but multiline, told apart by the first character.
    fn from_str(text: &str) -> Result<Self, TaskmapError> {
        let text = text.trim();
        match text.as_bytes().first() {
            // "[0-1];[2-3]" is raw too, but JSON arrays begin with "[[" or are "[]"
            Some(b'{') => Taskmap::from_value(&serde_json::from_str(text)?),
            Some(b'[') if text.trim_start_matches('[').len() + 1 < text.len() || text.ends_with("[]") => {
                Taskmap::from_value(&serde_json::from_str(text)?)
            }
            Some(b'(') => Taskmap::from_pmi(text),
            None => Err(TaskmapError::Form),
            Some(_) => {
                let nodes: Result<Vec<IdSet>, _> = text.split(';').map(str::parse).collect();
                Taskmap::manual(&nodes?)
            }
        }
    }
}
