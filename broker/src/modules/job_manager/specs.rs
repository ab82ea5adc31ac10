//! How do jobs that wait share what is equal? Jobs submitted by one command mostly have equal jobspecs.

use bytes::Bytes;
use serde_json::Value;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// Jobspecs remembered.
const KNOWN_MAX: usize = 64;

/// Jobspecs of jobs submitted lately, by their text.
#[derive(Debug, Default)]
pub(super) struct Specs {
    known: HashMap<Bytes, Weak<Value>>,
}

impl Specs {
    /// Returns the one copy of a jobspec; `text` is its JSON text.
    pub(super) fn share(&mut self, text: &Bytes, jobspec: Value) -> Rc<Value> {
        if let Some(known) = self.known.get(text).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, jobspec| jobspec.strong_count() > 0);
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
        }
        let jobspec = Rc::new(jobspec);
        self.known.insert(text.clone(), Rc::downgrade(&jobspec));
        jobspec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_texts_share_a_jobspec() {
        let mut specs = Specs::default();
        let (one, other) = (Bytes::from_static(b"[1]"), Bytes::from_static(b"[2]"));
        let first = specs.share(&one, json!([1]));
        assert!(Rc::ptr_eq(&first, &specs.share(&one, json!([1]))));
        assert!(!Rc::ptr_eq(&first, &specs.share(&other, json!([2]))));
        for number in 0..1000 {
            specs.share(&Bytes::from(number.to_string()), json!(number));
        }
        assert!(specs.known.len() <= KNOWN_MAX);
        drop(first);
        assert_eq!(*specs.share(&one, json!([1])), json!([1]));
    }
}
