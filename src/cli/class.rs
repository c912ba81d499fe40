//! The durability classes as values of an option.

use plinth_api::records::Durability;

/// Where a record is when its publish is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Class {
    /// In the object store
    Object,
    /// On the node's local disk, in the object store a moment later
    Local,
    /// In the node's memory, in the object store a moment later
    Memory,
}

impl Class {
    /// Its name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Local => "local",
            Self::Memory => "memory",
        }
    }
}

impl From<Class> for Durability {
    fn from(class: Class) -> Self {
        match class {
            Class::Object => Self::Object,
            Class::Local => Self::Local,
            Class::Memory => Self::Memory,
        }
    }
}
