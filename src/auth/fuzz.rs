//! Fuzz targets of what `auth` reads: keys, tickets, names, patterns, scopes. Each is compared with the written rule, told
//! in another way than the code tells it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::name::{check_pattern, check_tenant_name, check_topic_name};
use super::pattern::Pattern;
use super::scope::{Action, Scope};
use super::secret;
use crate::fuzz::{ITERATIONS, text};

const NAMES: &[&str] = &[
    "a",
    "Zz",
    "0",
    ".",
    "_",
    "~",
    "-",
    "/",
    "*",
    "**",
    "..",
    "//",
    "%2F",
    "é",
    " ",
    "\n",
    "\0",
    "admin",
    "orders",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// The rule of topic names as a grammar: levels between slashes.
fn is_topic_name(name: &str) -> bool {
    static RULE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\A[A-Za-z0-9~-][A-Za-z0-9._~-]*(/[A-Za-z0-9._~-]+)*\z").expect("a rule"));
    name.len() <= 255 && RULE.is_match(name) && !name.contains("..")
}

/// The same with stars, of which no three stand together.
fn is_pattern(pattern: &str) -> bool {
    static RULE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\A[A-Za-z0-9~*-][A-Za-z0-9._~*-]*(/[A-Za-z0-9._~*-]+)*\z").expect("a rule"));
    pattern.len() <= 255 && RULE.is_match(pattern) && !pattern.contains("..") && !pattern.contains("***")
}

/// Whether a name fits a pattern, by the set of places in the name that each part of the pattern can end at.
fn fits(pattern: &str, name: &str) -> bool {
    let (mut rest, name) = (pattern.as_bytes(), name.as_bytes());
    let mut ends = BTreeSet::from([0]);
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"**") {
            rest = after;
            ends = ends.first().map(|first| (*first..=name.len()).collect()).unwrap_or_default();
        } else if first == b'*' {
            rest = after;
            let run = |start: usize| {
                let length = name[start..].iter().take_while(|byte| !b"./".contains(byte)).count();
                start..=start + length
            };
            ends = ends.into_iter().flat_map(run).collect();
        } else {
            rest = after;
            ends = ends.into_iter().filter(|at| name.get(*at) == Some(&first)).map(|at| at + 1).collect();
        }
    }
    ends.contains(&name.len())
}

#[test]
fn a_topic_name_is_accepted_exactly_when_it_keeps_the_written_rule() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let name = text(NAMES, picks);
        let checked = check_topic_name(&name);
        assert_eq!(checked.is_ok(), is_topic_name(&name), "{name:?}: {checked:?}");
        assert!(checked.err().is_none_or(|why| why.len() < 6 * name.len() + 200), "an error is not much longer");
    });
}

#[test]
fn a_pattern_is_accepted_and_matches_by_the_written_rule() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(picks, other)| {
        let (pattern, name) = (text(NAMES, picks), text(NAMES, other));
        assert_eq!(check_pattern(&pattern).is_ok(), is_pattern(&pattern), "{pattern:?}");
        let Ok(read) = Pattern::parse(&pattern) else { return };
        if is_topic_name(&name) {
            assert_eq!(read.matches(&name), fits(&pattern, &name), "{pattern:?} and {name:?}");
        }
        // A name made of the pattern itself: matches are rare otherwise.
        let made = pattern.replace("**", "x/y.z").replace('*', "w");
        if is_topic_name(&made) {
            assert!(read.matches(&made) && fits(&pattern, &made), "{pattern:?} and {made:?}");
        }
    });
}

// Fails when a minted token could allow more than the key that asked for it.
#[test]
fn a_pattern_within_another_matches_nothing_that_the_other_does_not() {
    const PARTS: &[&str] = &["a", "b", ".", "/", "*", "**", "a.b", "-"];
    type Given = (Vec<u8>, Vec<u8>, Vec<u8>);
    bolero::check!().with_iterations(ITERATIONS).with_type::<Given>().for_each(|(inner, outer, name)| {
        let short = |picks: &[u8]| text(PARTS, &picks[..picks.len().min(6)]);
        let (inner, outer, name) = (short(inner), short(outer), short(name));
        let (Ok(read), Ok(wider)) = (Pattern::parse(&inner), Pattern::parse(&outer)) else { return };
        assert!(read.is_within(&read), "{inner:?} is within itself");
        if read.is_within(&wider) {
            let made = inner.replace("**", "a/b.a").replace('*', "b");
            let shortest = inner.replace('*', "");
            for name in [name, made, shortest] {
                assert!(!fits(&inner, &name) || fits(&outer, &name), "{inner:?} within {outer:?}, but {name:?}");
            }
        }
    });
}

#[test]
fn a_scope_is_an_action_and_a_pattern_and_allows_no_other_action() {
    const ACTIONS: [(&str, Action); 3] =
        [("publish", Action::Publish), ("subscribe", Action::Subscribe), ("manage", Action::Manage)];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(u8, Vec<u8>)>().for_each(|(action, picks)| {
        let (word, of) = ACTIONS[usize::from(*action) % 3];
        let pattern = text(NAMES, picks);
        let Ok(scope) = Scope::parse(&format!("{word}:{pattern}")) else { return };
        assert!(is_pattern(&pattern), "{pattern:?}");
        let name = pattern.replace("**", "x").replace('*', "w");
        for (_, other) in ACTIONS {
            assert_eq!(scope.allows(other, &name), other == of && is_topic_name(&name), "{word}:{pattern} {other}");
        }
        assert!(Scope::parse(&format!("{word}{pattern}")).is_err() || pattern.starts_with(':'), "{pattern:?}");
    });
}

#[test]
fn a_tenant_name_is_accepted_exactly_when_it_keeps_the_written_rule() {
    let rule = Regex::new(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z").expect("a rule");
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let name = text(&["a", "z", "0", "-", "A", "_", ".", "é", "aaaaaaaaaaaaaaaa"], picks);
        assert_eq!(check_tenant_name(&name).is_ok(), rule.is_match(&name), "{name:?}");
    });
}

#[test]
fn an_api_key_gives_its_id_and_no_changed_one_does() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<(u64, usize, u8)>().for_each(|(id, place, change)| {
        let id = format!("{id:x}");
        let key = secret::new_api_key(&id);
        assert_eq!(secret::api_key_id(&key), Some(&id[..]));
        assert!(secret::is_api_key(&key) && secret::ticket_tag(&key).is_none());
        let mut bytes = key.clone().into_bytes();
        let at = place % bytes.len();
        bytes[at] = (bytes[at] ^ (change | 1)) & 0x7f;
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(changed == key || secret::api_key_id(&changed).is_none(), "{changed}");
        assert!(
            secret::verify(&key, &secret::hash(&key)) && !secret::verify(&changed, &secret::hash(&key))
                || changed == key
        );
    });
}

#[test]
fn what_is_no_key_is_refused_without_a_panic() {
    const PIECES: &[&str] =
        &["plk_", "plt_", "plr_", "_", "a", "0123456789", "é", "\0", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let given = text(PIECES, picks);
        assert_eq!(secret::api_key_id(&given), None, "it has no checksum but by chance");
        if let Some(tag) = secret::ticket_tag(&given) {
            assert!(given.starts_with(&format!("plt_{tag}_")) && !tag.contains('_'), "{given}");
        }
        assert!(secret::last_four(&given).chars().count() <= 4);
    });
}
