//! Scopes: what a credential may do, each an action on the topics of a pattern, or `admin`.

use std::fmt;

use super::pattern::Pattern;
use super::system::SystemTopic;

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

/// One permission of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// An action on the topics that match.
    Topics(Action, Pattern),
    /// Keys of the own tenant.
    Admin,
    /// Reading the system topics, which comes with `Admin`; never given by itself.
    ReadSystemTopics,
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

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(action, pattern) => write!(f, "{action}:{pattern}"),
            Self::Admin => f.write_str("admin"),
            Self::ReadSystemTopics => f.write_str("admin, to read"),
        }
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
            Self::Admin | Self::ReadSystemTopics => SystemTopic::may_be_read(action, name),
        }
    }

    /// Whether it is proven that the scope allows `action` on whatever `pattern` matches.
    pub(super) fn allows_all(&self, action: Action, pattern: &Pattern) -> bool {
        match self {
            Self::Topics(of, own) => (action == Action::View || *of == action) && pattern.is_within(own),
            Self::Admin | Self::ReadSystemTopics => false,
        }
    }

    /// Whether it is proven that it allows nothing that `other` does not.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Topics(of, inner), Self::Topics(other, outer)) => of == other && inner.is_within(outer),
            (Self::Admin | Self::ReadSystemTopics, Self::Admin) => true,
            (Self::ReadSystemTopics, Self::ReadSystemTopics) => true,
            (Self::Admin, Self::ReadSystemTopics) => false,
            (Self::Topics(..), Self::Admin | Self::ReadSystemTopics)
            | (Self::Admin | Self::ReadSystemTopics, Self::Topics(..)) => false,
        }
    }

    /// Whether the scope allows `action` on some topic.
    pub(super) fn concerns(&self, action: Action) -> bool {
        match self {
            Self::Topics(of, _) => action == Action::View || *of == action,
            Self::Admin | Self::ReadSystemTopics => false,
        }
    }

    /// What of it is only reading.
    pub(super) fn reading(&self) -> Option<Self> {
        match self {
            Self::Topics(Action::Subscribe, pattern) => Some(Self::Topics(Action::Subscribe, pattern.clone())),
            Self::Topics(Action::Publish | Action::Manage | Action::View, _) => None,
            Self::Admin | Self::ReadSystemTopics => Some(Self::ReadSystemTopics),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_scope_is_within_one_of_the_same_action_that_allows_as_much() {
        let scope = |text| Scope::parse(text).expect("a scope");
        for (inner, outer, expected) in [
            ("publish:orders.eu", "publish:orders.*", true),
            ("publish:orders.eu", "subscribe:orders.*", false),
            ("publish:**", "publish:orders.*", false),
            ("admin", "admin", true),
            ("admin", "manage:**", false),
            ("manage:a", "admin", false),
        ] {
            assert_eq!(scope(inner).is_within(&scope(outer)), expected, "{inner} within {outer}");
        }
    }
}
