//! Durability classes: where the bytes of a record are when its append is acknowledged, and what a loss of the weaker ones
//! leaves behind (ADR 18).

use std::fmt;
use std::str::FromStr;

use crate::ids::Offset;

/// Where the bytes are when an append is acknowledged. Ordered: a later class is a stronger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In the memory of the owner: lost with its process, until they are stored a moment later.
    Memory,
    /// On the owner's local disk, synced: lost with the disk, until they are stored a moment later.
    Local,
    /// In the object store.
    #[default]
    Object,
}

/// Offsets of a partition that name no record and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub from: Offset,
    /// The first offset after them.
    pub to: Offset,
    /// Why they name nothing.
    pub reason: GapReason,
}

/// Why there is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Records of a weaker class than `object` may have been here. They were lost with their process or disk.
    Lost,
    /// Later records have superseded those that were here, in a topic that is cleaned up by key. No entry of the log says so,
    /// but the runs of its segments.
    Compacted,
    /// The records are there and past their time to live. Only who reads finds this out, by the clock (ADR 21).
    Expired,
}

impl Durability {
    /// All classes, the weakest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Local, Self::Object];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Local => "local",
            Self::Object => "object",
        }
    }
}

impl FromStr for Durability {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or(())
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl GapReason {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Compacted => "compacted",
            Self::Expired => "expired",
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Lost => 1,
            Self::Compacted => 2,
            Self::Expired => 3,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        (code == Self::Lost.code()).then_some(Self::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ordered_by_strength_and_have_their_names() {
        assert!(Durability::ALL.is_sorted());
        for class in Durability::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        for other in ["", "Object", "disk", "object "] {
            assert_eq!(other.parse::<Durability>(), Err(()), "{other:?}");
        }
    }
}
