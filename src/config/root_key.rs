//! The operator's secret: as a setting or in a file, strong enough, and with the one from before while it is replaced.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use super::{ConfigError, Given};

/// Fewest characters of a root key.
pub const ROOT_KEY_CHARS_MIN: usize = 32;
/// Fewest different characters of a root key: `aaaa…` and `12341234…` are not secrets.
const ROOT_KEY_DISTINCT_MIN: usize = 10;

/// The operator's secret. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RootKey(String);

impl RootKey {
    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Not done while parsing, whose errors repeat the value that was given.
    fn check_strength(&self) -> Result<(), ConfigError> {
        let length = self.0.chars().count();
        if length < ROOT_KEY_CHARS_MIN {
            return Err(ConfigError::RootKey(format!(
                "of {length} characters is shorter than the limit of {ROOT_KEY_CHARS_MIN}"
            )));
        }
        if !self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::RootKey("has characters other than visible ASCII".to_owned()));
        }
        let distinct = self.0.bytes().collect::<BTreeSet<_>>().len();
        if distinct < ROOT_KEY_DISTINCT_MIN {
            return Err(ConfigError::RootKey(format!(
                "of {distinct} different characters is easy to guess; use at least {ROOT_KEY_DISTINCT_MIN}"
            )));
        }
        Ok(())
    }
}

impl Given {
    /// The same with the root key of the file, if a file is given.
    pub(super) fn with_root_key_of_file(self) -> Result<Self, ConfigError> {
        let Some(path) = &self.root_key_file else { return Ok(self) };
        if self.root_key.is_some() {
            return Err(ConfigError::RootKey("is given twice, as root_key and as root_key_file".to_owned()));
        }
        let root_key = Some(read(path)?);
        Ok(Self { root_key, ..self })
    }
}

fn read(path: &Path) -> Result<RootKey, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::RootKeyFile { path: path.to_owned(), source })?;
    Ok(RootKey(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Checks both; the one from before only makes sense beside another one.
pub(super) fn check(newest: Option<&RootKey>, previous: Option<&RootKey>) -> Result<(), ConfigError> {
    if previous.is_some() && newest.is_none_or(|newest| Some(newest) == previous) {
        return Err(ConfigError::RootKey("from before (root_key_previous) needs another one beside it".to_owned()));
    }
    [newest, previous].into_iter().flatten().try_for_each(RootKey::check_strength)
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromStr for RootKey {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}
