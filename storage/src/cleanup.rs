//! How records of a topic go: by age and size alone, or also because a later record has their key (ADR 20).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A record that deletes its key stays for so long after the earlier records of the key are gone: whoever has read one of
/// them has as much time to learn that it is deleted.
pub const TOMBSTONE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// What happens to records besides retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cleanup {
    /// Nothing.
    #[default]
    Delete,
    /// Of each key at least the last record stays, earlier ones vanish. One with an empty payload deletes its key.
    Compact,
}

impl Cleanup {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Delete, Self::Compact];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Delete => 0,
            Self::Compact => 1,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cleanup| cleanup.code() == code)
    }
}

impl FromStr for Cleanup {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|cleanup| cleanup.as_str() == text).ok_or(())
    }
}

impl fmt::Display for Cleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
