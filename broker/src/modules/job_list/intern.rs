//! How do many jobs share what is equal? Each value is kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::rc::Rc;

/// Values that are kept once.
#[derive(Debug)]
pub(super) struct Interner<T: ?Sized + Eq + Hash> {
    values: HashSet<Rc<T>>,
    /// Sweep when there are this many.
    limit: usize,
}

impl<T: ?Sized + Eq + Hash> Default for Interner<T> {
    fn default() -> Self {
        Interner {
            values: HashSet::new(),
            limit: 1024,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// Returns the shared copy of a value.
    pub(super) fn intern<Q>(&mut self, value: Q) -> Rc<T>
    where
        Q: Into<Rc<T>> + Borrow<T>,
    {
        if let Some(known) = self.values.get(value.borrow()) {
            return known.clone();
        }
        if self.values.len() >= self.limit {
            self.values.retain(|value| Rc::strong_count(value) > 1);
            self.limit = (self.values.len() * 2).max(1024);
        }
        let value: Rc<T> = value.into();
        self.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut interner = Interner::<str>::default();
        let a = interner.intern("a");
        assert!(Rc::ptr_eq(&a, &interner.intern("a")));
        for number in 0..5000 {
            drop(interner.intern(number.to_string().as_str()));
        }
        assert!(interner.values.len() <= 1025);
        assert!(Rc::ptr_eq(&a, &interner.intern("a")));
    }
}
