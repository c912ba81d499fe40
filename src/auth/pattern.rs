//! Patterns of topic names: `*` is any run without `.` or `/`, `**` any run. And whether one allows no more than another.
//!
//! A pattern is its own machine: nothing is compiled, and it takes no more memory than its text. There may be one in every
//! token, and a token per user. Matching walks the name once, with a set of places in the pattern.

use std::collections::HashSet;
use std::fmt;

use super::name::check_pattern;

/// Stands for `*` among the bytes of a pattern; no name has it.
const RUN: u8 = 1;
/// Stands for `**`.
const LONG_RUN: u8 = 2;
/// Words of a set of places: one place more than a pattern has bytes.
const WORDS: usize = 4;
/// Most steps of a comparison of two patterns; what takes more is not proven.
const STEPS_MAX: usize = 20_000;

const _: () = assert!(plinth_api::limits::TOPIC_NAME_BYTES_MAX < WORDS * 64, "every place of a pattern has a bit");

/// A topic name in which `*` stands for any run without `.` or `/`, and `**` for any run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Everything,
    Exactly(Box<str>),
    Matching(Machine),
}

/// The bytes of a pattern with `RUN` and `LONG_RUN` for its stars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine(Box<[u8]>);

/// Places in a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Places([u64; WORDS]);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        check_pattern(text)?;
        if text == "**" {
            return Ok(Self::Everything);
        }
        if !text.contains('*') {
            return Ok(Self::Exactly(text.into()));
        }
        Ok(Self::Matching(Machine::of(text)))
    }

    /// Whether the topic `name` matches. No pattern with stars matches a system topic.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Everything => !name.starts_with('_'),
            Self::Exactly(text) => **text == *name,
            Self::Matching(machine) => !name.starts_with('_') && machine.matches(name.as_bytes()),
        }
    }

    /// Whether it is proven that whatever this one matches, `other` matches, too.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Everything) => true,
            (Self::Exactly(text), _) => other.matches(text),
            (Self::Matching(_) | Self::Everything, Self::Exactly(_)) => false,
            (Self::Matching(inner), Self::Matching(outer)) => inner.is_within(outer),
            (Self::Everything, Self::Matching(outer)) => Machine::of("**").is_within(outer),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("**"),
            Self::Exactly(text) => f.write_str(text),
            Self::Matching(machine) => machine.fmt(f),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| match *item {
            RUN => f.write_str("*"),
            LONG_RUN => f.write_str("**"),
            byte => fmt::Write::write_char(f, char::from(byte)),
        })
    }
}

impl Machine {
    fn of(text: &str) -> Self {
        let mut items = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            match (first, after.strip_prefix(b"*")) {
                (b'*', Some(after)) => {
                    items.push(LONG_RUN);
                    rest = after;
                    continue;
                }
                (b'*', None) => items.push(RUN),
                (byte, _) => items.push(byte),
            }
            rest = after;
        }
        Self(items.into())
    }

    fn matches(&self, name: &[u8]) -> bool {
        let fixed = self.0.iter().take_while(|item| !is_star(**item)).count();
        let Some(rest) = name.strip_prefix(&self.0[..fixed]) else { return false };
        if self.0[fixed..] == [LONG_RUN] {
            return true;
        }
        let mut places = Places::default();
        self.enter(fixed, &mut places);
        for &byte in rest {
            places = self.step(&places, byte);
            if places.is_empty() {
                return false;
            }
        }
        places.has(self.0.len())
    }

    /// Where a name may be that was at `places`, after `byte`.
    fn step(&self, places: &Places, byte: u8) -> Places {
        let mut next = Places::default();
        for place in places.iter().take_while(|place| *place < self.0.len()) {
            match self.0[place] {
                RUN if is_run(byte) => self.enter(place, &mut next),
                LONG_RUN => self.enter(place, &mut next),
                RUN => {}
                item if item == byte => self.enter(place + 1, &mut next),
                _ => {}
            }
        }
        next
    }

    /// Adds `place`, and those after it that need no byte to get to.
    fn enter(&self, place: usize, places: &mut Places) {
        let stars = self.0[place..].iter().take_while(|item| is_star(**item)).count();
        (place..=place + stars).for_each(|place| places.add(place));
    }

    /// Walks both machines along every name that this one matches. What `outer` can be at is one set, so that a name is
    /// found that only this one matches, if there is one. Gives up after a bounded number of steps.
    fn is_within(&self, outer: &Self) -> bool {
        let letters = letters(self, outer);
        let mut start = Places::default();
        outer.enter(0, &mut start);
        let mut seen = HashSet::new();
        let mut open: Vec<(usize, Places)> = self.entered(0).map(|place| (place, start)).collect();
        while let Some(state) = open.pop() {
            if !seen.insert(state) {
                continue;
            }
            if seen.len() > STEPS_MAX {
                return false;
            }
            let (place, at) = state;
            // From every place of a machine there is a way to its end.
            if at.is_empty() {
                return false;
            }
            if place == self.0.len() {
                if !at.has(outer.0.len()) {
                    return false;
                }
                continue;
            }
            for &letter in &letters {
                let Some(next) = self.after(place, letter) else { continue };
                let at = outer.step(&at, letter);
                open.extend(self.entered(next).map(|place| (place, at)));
            }
        }
        true
    }

    /// The places that a name is at which is at `place`.
    fn entered(&self, place: usize) -> impl Iterator<Item = usize> {
        let stars = self.0[place..].iter().take_while(|item| is_star(**item)).count();
        place..=place + stars
    }

    /// Where a name that is at `place` goes with `letter`.
    fn after(&self, place: usize, letter: u8) -> Option<usize> {
        match self.0[place] {
            LONG_RUN => Some(place),
            RUN => is_run(letter).then_some(place),
            item => (item == letter).then_some(place + 1),
        }
    }
}

/// One letter for each kind that the two tell apart: those that they name, the two that end a run, and one other.
fn letters(one: &Machine, other: &Machine) -> Vec<u8> {
    let mut letters: Vec<u8> = one.0.iter().chain(&other.0).copied().filter(|item| !is_star(*item)).collect();
    letters.extend(b"./");
    letters.sort_unstable();
    letters.dedup();
    let unnamed = (b'0'..=b'z').find(|byte| is_run(*byte) && !letters.contains(byte));
    letters.extend(unnamed);
    letters
}

fn is_star(item: u8) -> bool {
    item == RUN || item == LONG_RUN
}

/// Whether `*` may stand for `byte`, which is one of a name.
pub(super) fn is_run(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'-')
}

impl Places {
    fn add(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.checked_sub(1)?;
                Some(word * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    fn matches(text: &str, name: &str) -> bool {
        pattern(text).matches(name)
    }

    fn within(inner: &str, outer: &str) -> bool {
        pattern(inner).is_within(&pattern(outer))
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
    fn the_worst_pattern_of_the_longest_name_answers() {
        let stars = "a*".repeat(127);
        assert!(!matches(&stars, &"a".repeat(126)));
        assert!(matches(&stars, &"a".repeat(255)));
        assert!(matches(&"a**".repeat(85), &"a".repeat(255)));
        assert!(!matches(&format!("{}b", "a**".repeat(84)), &"a".repeat(255)));
    }

    #[test]
    fn a_pattern_reads_as_it_was_written() {
        for text in ["**", "*", "orders", "a*b**c", "orders/**", "**.eu"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_within_another_is_proven() {
        for (inner, outer) in [
            ("orders", "orders"),
            ("orders.eu", "orders.*"),
            ("orders.*", "orders.*"),
            ("orders.*", "orders.**"),
            ("orders.*", "**"),
            ("**", "**"),
            ("*", "**"),
            ("a*b*c", "a*c"),
            ("a.*.c", "a.**"),
            ("users/7/**", "users/*/**"),
            ("users/7/**", "users/**"),
            ("*.eu", "**.eu"),
            ("a**b", "a**"),
            ("x*y**z", "**z"),
        ] {
            assert!(within(inner, outer), "{inner} within {outer}");
        }
    }

    #[test]
    fn what_allows_more_is_not_within() {
        for (inner, outer) in [
            ("orders", "orders2"),
            ("orders*", "orders.*"),
            ("orders.**", "orders.*"),
            ("**", "*"),
            ("**", "a**"),
            ("orders.*", "orders.eu"),
            ("a*c", "a*b*c"),
            ("users/**", "users/7/**"),
            ("users/*/**", "users/7/**"),
            ("**.eu", "*.eu"),
            ("a**", "a**b"),
            ("*/x", "*"),
            ("0*", "0*9"),
        ] {
            assert!(!within(inner, outer), "{inner} not within {outer}");
        }
    }

    /// Patterns and names of few letters, so that they meet.
    fn pieces(choices: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(choices), 1..most).prop_map(|parts| parts.concat())
    }

    /// By trying every way to match: slow, and clear.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|take| slowly(rest, &name[take..])),
            [b'*', rest @ ..] => (0..=name.len())
                .take_while(|take| name[..*take].iter().all(|byte| is_run(*byte)))
                .any(|take| slowly(rest, &name[take..])),
            [byte, rest @ ..] => name.first() == Some(byte) && slowly(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_match_is_what_trying_every_way_finds(
            text in pieces(&["a", "b", ".", "/", "*", "**"], 8),
            name in pieces(&["a", "b", ".", "/"], 9),
        ) {
            if let Ok(pattern) = Pattern::parse(&text) {
                prop_assert_eq!(pattern.matches(&name), slowly(text.as_bytes(), name.as_bytes()));
            }
        }

        #[test]
        fn a_pattern_within_another_matches_nothing_else(
            inner in pieces(&["a", "b", ".", "/", "*", "**"], 7),
            outer in pieces(&["a", "b", ".", "/", "*", "**"], 7),
            name in pieces(&["a", "b", "c", ".", "/"], 9),
        ) {
            if let (Ok(inner), Ok(outer)) = (Pattern::parse(&inner), Pattern::parse(&outer)) {
                prop_assert!(!inner.is_within(&outer) || !inner.matches(&name) || outer.matches(&name));
            }
        }
    }
}
