//! The naming rules of topics, tenants and patterns. Names arrive percent-decoded, once; nothing here decodes again.

use plinth_api::limits::{TENANT_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX};

/// Checks a topic name: 1 to 255 bytes of `A-Z a-z 0-9 . _ ~ - /`, not starting with `_` or `.`, no empty level, no `..`.
///
/// # Errors
/// The sentence that names the rule which is broken.
pub(super) fn check_topic_name(name: &str) -> Result<(), String> {
    check_shape("topic name", name, false)
}

/// Checks a pattern: a topic name in which `*` stands for any run without `.` or `/`, and `**` for any run.
///
/// # Errors
/// The sentence that names the rule which is broken.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    check_shape("topic pattern", pattern, true)?;
    if pattern.contains("***") {
        return Err(format!("topic pattern {pattern:?} has more than two * in a row"));
    }
    Ok(())
}

/// Checks a tenant name: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit.
///
/// # Errors
/// The sentence that names the rule which is broken.
pub(super) fn check_tenant_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > TENANT_NAME_BYTES_MAX {
        return Err(format!("tenant name of {} bytes is not within 1 to {TENANT_NAME_BYTES_MAX} bytes", name.len()));
    }
    if let Some(other) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(format!("tenant name {name:?} has the character {other:?}; allowed are a-z 0-9 -"));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(format!("tenant name {name:?} does not start and end with a letter or digit"));
    }
    Ok(())
}

fn check_shape(what: &str, name: &str, stars: bool) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{what} is empty; it has 1 to {TOPIC_NAME_BYTES_MAX} bytes"));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(format!("{what} of {} bytes exceeds the limit of {TOPIC_NAME_BYTES_MAX}", name.len()));
    }
    if let Some(other) = name.chars().find(|&c| !(is_name_char(c) || stars && c == '*')) {
        return Err(format!("{what} {name:?} has the character {other:?}; allowed are A-Z a-z 0-9 . _ ~ - /"));
    }
    if name.starts_with('_') {
        return Err(format!("{what} {name:?} starts with _, which is reserved"));
    }
    if name.starts_with('.') {
        return Err(format!("{what} {name:?} starts with a dot"));
    }
    if name.contains("..") {
        return Err(format!("{what} {name:?} has two dots in a row"));
    }
    if name.starts_with('/') || name.ends_with('/') || name.contains("//") {
        return Err(format!("{what} {name:?} has an empty level: it starts or ends with / or has two in a row"));
    }
    Ok(())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_keep_the_rule_are_accepted() {
        let longest = "a".repeat(255);
        for name in ["a", "orders", "Orders.eu-1~x_y/2026", "0", "-a", "~", "a_b", "a.", "a/.b", longest.as_str()] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_break_the_rule_are_refused_with_the_rule_named() {
        let long = "a".repeat(256);
        for (name, sentence) in [
            ("", "is empty"),
            (long.as_str(), "exceeds the limit of 255"),
            ("a b", "has the character ' '"),
            ("a%2Fb", "has the character '%'"),
            ("ä", "has the character 'ä'"),
            ("a\0", "has the character '\\0'"),
            ("a*", "has the character '*'"),
            ("_usage", "reserved"),
            (".a", "starts with a dot"),
            ("a..b", "two dots"),
            ("../a", "starts with a dot"),
            ("/a", "empty level"),
            ("a/", "empty level"),
            ("a//b", "empty level"),
        ] {
            let refused = check_topic_name(name).expect_err(name);
            assert!(refused.contains(sentence), "{name:?}: {refused}");
        }
    }

    #[test]
    fn patterns_are_names_with_stars() {
        for pattern in ["*", "**", "orders.*", "orders/**", "*.eu", "a*b", "orders"] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
        for pattern in ["", "***", "a***", "_*", "a b*", "a//*", "?"] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn tenant_names_are_lower_case_labels() {
        for name in ["a", "default", "team-7", "0", &"a".repeat(63)] {
            assert_eq!(check_tenant_name(name), Ok(()), "{name}");
        }
        for name in ["", "A", "a_b", "-a", "a-", "a.b", "ä", &"a".repeat(64)] {
            assert!(check_tenant_name(name).is_err(), "{name}");
        }
    }
}
