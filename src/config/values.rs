//! Values of settings that people write with a unit, or in words.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::units;

/// A number of bytes: `1048576`, `64MiB`, `4GiB`, `500MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        units::parse_bytes(text).map(Self)
    }
}

/// A length of time: `250ms`, `10s`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|error| format!("{error}; write a time such as 250ms or 10s"))
    }
}

/// A length of time, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct FlushInterval(pub Option<Duration>);

impl FromStr for FlushInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self(None)) } else { text.parse::<Span>().map(|span| Self(Some(span.0))) }
    }
}

/// A part of all, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Ratio {
    /// How many of a million.
    pub per_million: u32,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { per_million: 10_000 }
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        let ratio = ratio.ok_or_else(|| format!("{text} is not a number from 0 to 1"))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
        let per_million = (ratio * 1e6).round() as u32;
        Ok(Self { per_million })
    }
}

/// A TOML string or number that is then parsed as a flag would be.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string such as \"64MiB\" or \"10s\", or a number")]
enum Text {
    Written(String),
    Whole(u64),
    Part(f64),
}

/// Names of hosts, with commas between them, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Hosts(pub Vec<String>);

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hosts = text.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
        let hosts: Vec<String> = hosts.collect();
        match hosts.iter().find(|host| host.contains(['/', '*', '@', ' '])) {
            Some(bad) => Err(format!("{bad:?} is not the name of a host, such as keycloak.internal")),
            None => Ok(Self(hosts)),
        }
    }
}

macro_rules! parsed_as_a_flag {
    ($($kind:ty),*) => {$(
        impl TryFrom<Text> for $kind {
            type Error = String;

            fn try_from(text: Text) -> Result<Self, Self::Error> {
                match text {
                    Text::Written(text) => text.parse(),
                    Text::Whole(number) => number.to_string().parse(),
                    Text::Part(number) => number.to_string().parse(),
                }
            }
        }
    )*};
}
parsed_as_a_flag!(ByteSize, Span, Hosts, FlushInterval, Ratio);
