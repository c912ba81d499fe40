//! Globs of streams, by whole levels of a name: `*` is one level, `**` any number of them, none included.
//!
//! They are those of the protocol of streams, and not the patterns of scopes, in which a star is a run of characters. A glob is
//! allowed where every name that it matches is.

use plinth_api::limits::GLOBSTARS_MAX;

use super::name::check_pattern;
use super::pattern::Pattern;
use super::scope::Action;
use super::{Caller, Denied};

/// A name of a stream in which levels may be stars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Box<[Level]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Exactly(Box<str>),
    One,
    Any,
}

impl Glob {
    /// Reads a glob.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        check_pattern(text)?;
        let mut levels = Vec::new();
        for level in text.split('/') {
            match level {
                "*" => levels.push(Level::One),
                // Two in a row match no more than one.
                "**" if levels.last() == Some(&Level::Any) => {}
                "**" => levels.push(Level::Any),
                _ if level.contains('*') => {
                    return Err(format!("glob {text:?} has the level {level:?}: a star stands for whole levels"));
                }
                _ => levels.push(Level::Exactly(level.into())),
            }
        }
        let any = levels.iter().filter(|level| **level == Level::Any).count();
        if any > GLOBSTARS_MAX {
            return Err(format!("glob {text:?} has {any} levels **, which exceed the limit of {GLOBSTARS_MAX}"));
        }
        Ok(Self(levels.into()))
    }

    /// Whether the stream `name` matches. No topic of the system does.
    pub(crate) fn matches(&self, name: &str) -> bool {
        if name.starts_with('_') {
            return false;
        }
        let levels: Vec<&str> = name.split('/').collect();
        let (mut at, mut place) = (0, 0);
        // What follows the last `**`, and how far that reaches.
        let mut again = None;
        while at < levels.len() {
            match self.0.get(place) {
                Some(Level::Any) => {
                    place += 1;
                    again = Some((place, at));
                }
                Some(Level::One) => (at, place) = (at + 1, place + 1),
                Some(Level::Exactly(text)) if **text == *levels[at] => (at, place) = (at + 1, place + 1),
                Some(Level::Exactly(_)) | None => {
                    let Some((behind, taken)) = again else { return false };
                    (at, place) = (taken + 1, behind);
                    again = Some((behind, at));
                }
            }
        }
        self.0[place..].iter().all(|level| *level == Level::Any)
    }

    /// The longest beginning of whole levels that all names which match have.
    pub(crate) fn prefix(&self) -> String {
        let fixed = self.0.iter().map_while(|level| match level {
            Level::Exactly(text) => Some(&**text),
            Level::One | Level::Any => None,
        });
        fixed.collect::<Vec<_>>().join("/")
    }

    /// Patterns of scopes that together match whatever this one does: with each `**` as no level, and as some.
    fn readings(&self) -> Vec<String> {
        let mut readings = vec![String::new()];
        for level in &self.0 {
            let append = |reading: &String, text: &str| match reading.as_str() {
                "" => text.to_owned(),
                _ => format!("{reading}/{text}"),
            };
            let next = match level {
                Level::Exactly(text) => readings.iter().map(|reading| append(reading, text)).collect(),
                Level::One => readings.iter().map(|reading| append(reading, "**")).collect(),
                Level::Any => readings.iter().flat_map(|reading| [reading.clone(), append(reading, "**")]).collect(),
            };
            readings = next;
        }
        readings.retain(|reading| !reading.is_empty());
        readings
    }
}

impl Caller {
    /// Whether it is proven that the scopes allow `action` on every stream that a glob may ever match.
    pub(crate) fn may_all(&self, action: Action, glob: &Glob) -> bool {
        self.lacking(action, glob).is_empty()
    }

    /// The patterns of scopes that are needed for all that a glob may ever match, and are not allowed.
    pub(crate) fn lacking(&self, action: Action, glob: &Glob) -> Vec<String> {
        let is_covered = |text: &str| Pattern::parse(text).is_ok_and(|reading| self.covers_pattern(action, &reading));
        glob.readings().into_iter().filter(|reading| !is_covered(reading)).collect()
    }

    /// Whether the scopes allow `action` on some stream.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn authorize_some(&self, action: Action) -> Result<(), Denied> {
        let tenant = self.account_inside()?.tenant();
        if tenant.is_reserved() || !self.may_somewhere(action) {
            return Err(Denied::Forbidden(format!("the credential does not allow {action} on any stream")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::parse(text).expect(text)
    }

    #[test]
    fn stars_stand_for_whole_levels() {
        for (text, names, others) in [
            (
                "events/*",
                &["events/a", "events/a.b", "events/.a"][..],
                &["events", "events/a/b", "eventsa", "a/events/b"][..],
            ),
            ("events/**", &["events", "events/a", "events/a/b/c"], &["event", "eventsa", "a/events"]),
            ("**", &["a", "a/b", "a/b/c"], &["_audit", "_usage"]),
            ("*", &["a", "a.b"], &["a/b", "_audit"]),
            ("**/log", &["log", "a/log", "a/b/log", "log/log"], &["logs", "a/log/b"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b", "a/b/b", "a/b/x/b"], &["a", "b", "a/x", "a/b/x"]),
            ("a/*/**/b/*", &["a/x/b/y", "a/x/z/b/y", "a/b/b/b"], &["a/b/y", "a/x/b", "a/b/b"]),
            ("**/a/**/b", &["a/b", "x/a/y/b", "a/a/b/b", "b/a/b"], &["b/a", "a"]),
            ("a", &["a"], &["b", "a/a"]),
        ] {
            for name in names {
                assert!(glob(text).matches(name), "{text} {name}");
            }
            for name in others {
                assert!(!glob(text).matches(name), "{text} {name}");
            }
        }
    }

    #[test]
    fn a_star_within_a_level_and_too_many_of_any_are_refused() {
        for text in ["a*", "a/b*", "*a/b", "", "/a", "a//b", "_a", "a/***", "a/**/b/**/c/**/d/**/e/**"] {
            assert!(Glob::parse(text).is_err(), "{text}");
        }
        assert_eq!(glob("a/**/**/b"), glob("a/**/b"));
        for (text, prefix) in [("events/*", "events"), ("a/b/**/c", "a/b"), ("**", ""), ("a/b", "a/b")] {
            assert_eq!(glob(text).prefix(), prefix);
        }
    }

    proptest! {
        // Fails when a place to go back to is forgotten, or a level is taken twice.
        #[test]
        fn a_glob_matches_as_its_meaning_says(
            text in "(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,5}", name in "[ab](/[ab]){0,6}"
        ) {
            fn means(glob: &[&str], name: &[&str]) -> bool {
                match (glob.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((&"**", rest)), _) => means(rest, name) || !name.is_empty() && means(glob, &name[1..]),
                    (Some((star, glob)), Some((level, name))) => (*star == "*" || star == level) && means(glob, name),
                    (None, Some(_)) | (Some(_), None) => false,
                }
            }
            let Ok(glob) = Glob::parse(&text) else { return Ok(()) };
            let (levels, names): (Vec<&str>, Vec<&str>) = (text.split('/').collect(), name.split('/').collect());
            prop_assert_eq!(glob.matches(&name), means(&levels, &names), "{} {}", text, name);
        }

        // Fails when a reading leaves a star out, or takes one for less than it matches.
        #[test]
        fn whatever_a_glob_matches_one_of_its_readings_does(
            text in "(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,5}", name in "[ab.]{1,2}(/[ab]){0,6}"
        ) {
            let Ok(glob) = Glob::parse(&text) else { return Ok(()) };
            if glob.matches(&name) {
                let matches = |reading: &String| Pattern::parse(reading).expect("a pattern").matches(&name);
                prop_assert!(glob.readings().iter().any(matches), "{} {}", text, name);
            }
        }
    }
}
