//! How are hostlists sorted, cut and combined?
//!
//! Operations that look at each host refuse lists of more than [`EXPAND_MAX`] hosts.

use std::collections::{HashMap, HashSet};

use super::{EXPAND_MAX, Hostlist, HostlistError};
use crate::hostlist::range::HostRange;

impl Hostlist {
    /// Returns every host as a string.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn expand(&self) -> Result<Vec<String>, HostlistError> {
        if self.count() > EXPAND_MAX {
            return Err(HostlistError::TooManyHosts);
        }
        Ok(self.iter().collect())
    }

    /// Returns a list of host names taken as they are, without check; only for names that come from lists.
    fn from_known<'a>(hosts: impl IntoIterator<Item = &'a String>) -> Hostlist {
        let mut list = Hostlist::new();
        hosts.into_iter().for_each(|host| list.push_host(host));
        list
    }

    /// Removes the first occurrence of `host`; returns false when it is not in the list.
    pub fn remove(&mut self, host: &str) -> bool {
        let found = self
            .ranges
            .iter()
            .enumerate()
            .find_map(|(index, range)| Some((index, range.find(host)?)));
        let Some((index, offset)) = found else {
            return false;
        };
        let (before, after) = self
            .ranges
            .get(index)
            .map_or((None, None), |range| range.without(offset));
        self.ranges.splice(index..=index, before.into_iter().chain(after));
        true
    }

    /// Removes the first occurrence of each host of `other`; returns how many were removed.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`] for `other`.
    pub fn delete(&mut self, other: &Hostlist) -> Result<u64, HostlistError> {
        let mut removed = 0;
        for host in other.expand()? {
            removed += u64::from(self.remove(&host));
        }
        Ok(removed)
    }

    /// Returns the list in order of prefix, number and width; repeated hosts stay.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn sorted(&self) -> Result<Hostlist, HostlistError> {
        let hosts = self.expand()?;
        let mut keyed: Vec<(HostRange, &String)> = hosts
            .iter()
            .map(|host| (HostRange::single(host, None), host))
            .collect();
        keyed.sort_by(|a, b| a.0.sort_key().cmp(&b.0.sort_key()));
        Ok(Hostlist::from_known(keyed.into_iter().map(|(_, host)| host)))
    }

    /// Returns the list with only the first occurrence of each host, in order.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn unique(&self) -> Result<Hostlist, HostlistError> {
        let hosts = self.expand()?;
        let mut seen = HashSet::new();
        Ok(Hostlist::from_known(
            hosts.iter().filter(|host| seen.insert(host.as_str())),
        ))
    }

    /// Returns the hosts of either list, each once, those of this list first.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn union(&self, other: &Hostlist) -> Result<Hostlist, HostlistError> {
        let mut both = self.clone();
        both.append_list(other);
        both.unique()
    }

    /// Returns the hosts that are in both lists, each once, in this list's order.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn intersection(&self, other: &Hostlist) -> Result<Hostlist, HostlistError> {
        self.unique()?.filtered(other, true)
    }

    /// Returns this list without any occurrence of the hosts of `other`.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn difference(&self, other: &Hostlist) -> Result<Hostlist, HostlistError> {
        self.filtered(other, false)
    }

    /// Returns the hosts that are in exactly one list, each once.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn symmetric_difference(&self, other: &Hostlist) -> Result<Hostlist, HostlistError> {
        self.difference(other)?.union(&other.difference(self)?)
    }

    /// Returns the hosts that are (or are not) in `other`, in order.
    fn filtered(&self, other: &Hostlist, keep_common: bool) -> Result<Hostlist, HostlistError> {
        let (mine, theirs) = (self.expand()?, other.expand()?);
        let theirs: HashSet<&str> = theirs.iter().map(String::as_str).collect();
        Ok(Hostlist::from_known(
            mine.iter()
                .filter(|host| theirs.contains(host.as_str()) == keep_common),
        ))
    }

    /// Returns the indices of each host, for callers that look up many hosts.
    ///
    /// # Errors
    /// [`HostlistError::TooManyHosts`].
    pub fn index(&self) -> Result<HashMap<String, Vec<u32>>, HostlistError> {
        let mut index: HashMap<String, Vec<u32>> = HashMap::new();
        for (position, host) in (0u32..).zip(self.expand()?) {
            index.entry(host).or_default().push(position);
        }
        Ok(index)
    }
}
