//! How are event names shared between all events of that name?

use std::collections::HashMap;
use std::rc::Rc;

/// Names kept; those of RFC 21 are two dozen, others come from the instance owner.
const NAMES_MAX: usize = 1024;

/// Event names seen so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Rc<str>, ()>,
}

impl Names {
    /// Returns the shared form of a name.
    pub(super) fn get(&mut self, name: &str) -> Rc<str> {
        if let Some((known, ())) = self.known.get_key_value(name) {
            return known.clone();
        }
        let name: Rc<str> = Rc::from(name);
        if self.known.len() < NAMES_MAX {
            self.known.insert(name.clone(), ());
        }
        name
    }
}
