//! Scopes and the patterns inside them. A pattern is compiled once, when its credential or request is first seen.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::name::check_pattern;

/// What `*` stands for: the characters of a name without `.` and `/`.
const RUN: &str = "[A-Za-z0-9_~-]*";
/// What `**` stands for: all characters of a name.
const LONG_RUN: &str = "[A-Za-z0-9._~/-]*";
/// Working memory of one compiled pattern.
const MATCHER_BYTES_MAX: usize = 256 * 1024;

/// What a caller wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Store records.
    Publish,
    /// Read and follow records.
    Subscribe,
    /// Create, change, delete.
    Manage,
    /// See that it exists, its settings and its bounds: allowed by each of the other three.
    View,
}

/// One permission of an API key.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// An action on the topics that match.
    Topics(Action, Pattern),
    /// Keys of the own tenant.
    Admin,
}

/// A topic name in which `*` stands for any run without `.` or `/`, and `**` for any run.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Everything,
    Exactly(Box<str>),
    Matching(Regex),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Manage => "manage",
            Self::View => "view",
        })
    }
}

impl Scope {
    /// Reads `publish:<pattern>`, `subscribe:<pattern>`, `manage:<pattern>` or `admin`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "admin" {
            return Ok(Self::Admin);
        }
        let action = match text.split_once(':').map(|(action, _)| action) {
            Some("publish") => Action::Publish,
            Some("subscribe") => Action::Subscribe,
            Some("manage") => Action::Manage,
            Some(_) | None => {
                let offered = "publish:<pattern>, subscribe:<pattern>, manage:<pattern>, admin";
                return Err(format!("scope {text:?} is not known; there are {offered}"));
            }
        };
        let pattern = text.split_once(':').map_or("", |(_, pattern)| pattern);
        Pattern::parse(pattern)
            .map(|pattern| Self::Topics(action, pattern))
            .map_err(|why| format!("scope {text:?}: {why}"))
    }

    /// Whether the scope allows `action` on the topic `name`.
    pub(super) fn allows(&self, action: Action, name: &str) -> bool {
        match self {
            Self::Topics(of, pattern) => (action == Action::View || *of == action) && pattern.matches(name),
            Self::Admin => false,
        }
    }

    /// Whether the scope allows `action` on some topic.
    pub(super) fn concerns(&self, action: Action) -> bool {
        match self {
            Self::Topics(of, _) => action == Action::View || *of == action,
            Self::Admin => false,
        }
    }
}

impl Pattern {
    /// Compiles a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        check_pattern(text)?;
        if text == "**" {
            return Ok(Self::Everything);
        }
        if !text.contains('*') {
            return Ok(Self::Exactly(text.into()));
        }
        let parts = text.split("**").map(|part| part.split('*').map(regex::escape).collect::<Vec<_>>().join(RUN));
        let expression = format!("^(?:{})$", parts.collect::<Vec<_>>().join(LONG_RUN));
        let compiled = RegexBuilder::new(&expression).dfa_size_limit(MATCHER_BYTES_MAX).build();
        compiled.map(Self::Matching).map_err(|_| format!("topic pattern {text:?} is too complex"))
    }

    /// Whether the topic `name` matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Exactly(text) => **text == *name,
            Self::Matching(regex) => regex.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).expect(pattern).matches(name)
    }

    #[test]
    fn one_star_stays_within_a_level_and_two_stars_do_not() {
        for (pattern, name, expected) in [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders.*", "orders.eu", true),
            ("orders.*", "orders.eu.west", false),
            ("orders.*", "orders.eu/west", false),
            ("orders.*", "ordersXeu", false),
            ("orders*", "orders", true),
            ("orders/*/done", "orders/7/done", true),
            ("orders/*/done", "orders/7/8/done", false),
            ("orders/**", "orders/7/8/done", true),
            ("orders/**", "orders", false),
            ("**", "anything/at.all", true),
            ("*", "anything", true),
            ("*", "any.thing", false),
            ("**.eu", "a/b.c.eu", true),
            ("**.eu", "a/b.c.us", false),
            ("a*b**c", "axb.y/zc", true),
            ("a*b**c", "a.b.y/zc", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn characters_of_a_name_have_no_meaning_in_a_pattern() {
        assert!(!matches("a.b*", "axb"));
        assert!(matches("a-b~c_d.*", "a-b~c_d.e"));
    }

    #[test]
    fn a_scope_allows_its_action_and_the_view_only() {
        let scope = Scope::parse("publish:orders.*").expect("a scope");
        assert!(scope.allows(Action::Publish, "orders.eu"));
        assert!(scope.allows(Action::View, "orders.eu"));
        assert!(!scope.allows(Action::Subscribe, "orders.eu"));
        assert!(!scope.allows(Action::Manage, "orders.eu"));
        assert!(!scope.allows(Action::Publish, "bills.eu"));
        assert!(!Scope::parse("admin").expect("a scope").allows(Action::View, "orders.eu"));
    }

    #[test]
    fn unknown_scopes_are_refused_by_name() {
        for text in
            ["", "read:**", "publish", "publish:", "admin:**", "operator", "view:**", "publish:***", "publish:_x"]
        {
            let refused = Scope::parse(text).expect_err(text);
            assert!(refused.contains(&format!("{text:?}")), "{refused}");
        }
    }

    #[test]
    fn the_worst_pattern_of_the_longest_name_compiles_and_answers() {
        let pattern = "a*".repeat(127);
        assert!(!matches(&pattern, &"a".repeat(126)));
        assert!(matches(&pattern, &"a".repeat(255)));
        let pattern = "a**".repeat(85);
        assert!(matches(&pattern, &"a".repeat(255)));
    }
}
