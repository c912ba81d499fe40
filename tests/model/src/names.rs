//! The words of the model: small numbers of one meaning each, and sets of names in a bucket.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u8);

        impl $name {
            /// The one after it.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// As a place in an array.
            #[must_use]
            pub fn at(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

number!(
    /// A session.
    Sid
);
number!(
    /// A slot of a session's log.
    Slot
);
number!(
    /// The number of a checkpoint of a session.
    Nth
);
number!(
    /// A shard; it has one partition here.
    Shard
);
number!(
    /// The epoch of a claim.
    Epoch
);
number!(
    /// A record, by the order in which they are accepted.
    Record
);
number!(
    /// A segment.
    SegmentId
);
number!(
    /// The place of a record in its partition.
    Offset
);

/// An object under a name, or what stood there before it was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held<T> {
    /// The bytes.
    pub object: T,
    /// False once it was deleted.
    pub there: bool,
}

/// What a create met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created<T> {
    /// Nothing: the object is there now.
    New,
    /// The same bytes.
    Same,
    /// Other bytes.
    Other(T),
}

/// Objects by name, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Names<K, T>(Vec<(K, Held<T>)>);

impl<K, T> Default for Names<K, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + Ord, T: Copy + Eq> Names<K, T> {
    /// The object that stands under a name.
    pub fn get(&self, key: K) -> Option<T> {
        self.held(key).filter(|held| held.there).map(|held| held.object)
    }

    /// What stands or stood under a name.
    pub fn held(&self, key: K) -> Option<Held<T>> {
        self.0.binary_search_by_key(&key, |(key, _)| *key).ok().map(|at| self.0[at].1)
    }

    /// What a listing gives, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, T)> + '_ {
        self.0.iter().filter(|(_, held)| held.there).map(|(key, held)| (*key, held.object))
    }

    /// Create-if-absent.
    pub fn create(&mut self, key: K, object: T) -> Created<T> {
        match self.0.binary_search_by_key(&key, |(key, _)| *key) {
            Err(at) => {
                self.0.insert(at, (key, Held { object, there: true }));
                Created::New
            }
            Ok(at) => {
                let held = &mut self.0[at].1;
                if !held.there {
                    *held = Held { object, there: true };
                    Created::New
                } else if held.object == object {
                    Created::Same
                } else {
                    Created::Other(held.object)
                }
            }
        }
    }

    /// A put without a condition.
    pub fn replace(&mut self, key: K, object: T) {
        self.forget(key);
        self.create(key, object);
    }

    /// Deletes an object; what it was is remembered.
    pub fn delete(&mut self, key: K) {
        if let Ok(at) = self.0.binary_search_by_key(&key, |(key, _)| *key) {
            self.0[at].1.there = false;
        }
    }

    /// As if it had never been there.
    pub fn forget(&mut self, key: K) {
        self.0.retain(|(other, _)| *other != key);
    }
}
