//! The offset of a stream as clients see it: a token that sorts by its bytes as the position does.
//!
//! ```text
//! TTTTTTTTTTTTTOOO_OOOOOOOOOOOO0000     13 digits tag · 15 digits offset · 4 digits that are written as 0
//! ```
//!
//! The tag names the incarnation of the stream: the time of its creation in ms, which no two streams of one name share and
//! which grows from one to the next. So a token of a stream that was deleted is known as such by the one that follows, and
//! sorts below its tokens. A fork gives the tokens of its source up to where it left it, so that these hold on both. The last four digits are not read: clients add small numbers to what follows the underscore, and
//! are to be at the same position still. 33 characters of `[0-9_]`, good for a path, a header and a JSON string.

use std::fmt;

use plinth_storage::ids::Offset;

use crate::broker::error::Error;

/// Length of a token, in bytes.
pub const TOKEN_BYTES: usize = 33;

const TAG_DIGITS: usize = 13;
const OFFSET_DIGITS: usize = 15;
const SPARE_DIGITS: usize = 4;
/// Characters before the underscore, and after it.
const HALF: usize = 16;
/// No tag and no offset is so large: the year 2286, and 10^15 records.
const TAG_END: u64 = 10u64.pow(13);
const OFFSET_END: u64 = 10u64.pow(15);

/// A position in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    tag: u64,
    offset: u64,
}

/// A token as it came from a client: of its form, and not yet of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenToken {
    tag: u64,
    offset: u64,
}

/// The tags of the streams that a fork shares its first offsets with, each with the last offset that has it.
pub(crate) type SharedTags = [(u64, Offset)];

/// What is readable of the stream that a token is to be of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readable<'a> {
    /// The tag of the incarnation.
    pub(crate) tag: u64,
    /// Of a fork.
    pub(crate) shared: &'a SharedTags,
    /// The first offset that is kept.
    pub(crate) start: Offset,
    /// The end.
    pub(crate) tail: Offset,
}

impl Token {
    /// The position `offset` of the incarnation `tag`.
    pub(crate) fn new(tag: u64, offset: Offset) -> Self {
        debug_assert!(tag < TAG_END && offset.0 < OFFSET_END, "a token says any time and offset that there will be");
        Self { tag, offset: offset.0 }
    }

    /// What is before every position of every stream.
    pub(in crate::broker) const ZERO: Self = Self { tag: 0, offset: 0 };

    /// The tag, and the offset.
    pub(in crate::broker) fn parts(self) -> (u64, Offset) {
        (self.tag, Offset(self.offset))
    }

    /// The position `offset` of the incarnation `tag`, or of the one that it shares it with.
    pub(crate) fn shared(shared: &SharedTags, tag: u64, offset: Offset) -> Self {
        let first = shared.get(shared.partition_point(|(_, last)| *last < offset));
        Self::new(first.map_or(tag, |(tag, _)| *tag), offset)
    }

    /// Its text, which is ASCII.
    #[must_use]
    pub fn encode(&self) -> [u8; TOKEN_BYTES] {
        let mut digits = [b'0'; 2 * HALF];
        write_digits(&mut digits[..TAG_DIGITS], self.tag);
        write_digits(&mut digits[TAG_DIGITS..TAG_DIGITS + OFFSET_DIGITS], self.offset);
        let mut text = [b'_'; TOKEN_BYTES];
        text[..HALF].copy_from_slice(&digits[..HALF]);
        text[HALF + 1..].copy_from_slice(&digits[HALF..]);
        text
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).expect("digits are ASCII"))
    }
}

impl GivenToken {
    /// Reads a token; none when it does not have the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, second) = text.split_once('_')?;
        if first.len() != HALF || second.len() != HALF {
            return None;
        }
        let mut digits = [0; 2 * HALF];
        digits[..HALF].copy_from_slice(first.as_bytes());
        digits[HALF..].copy_from_slice(second.as_bytes());
        read_digits(&digits[2 * HALF - SPARE_DIGITS..])?;
        let tag = read_digits(&digits[..TAG_DIGITS])?;
        let offset = read_digits(&digits[TAG_DIGITS..TAG_DIGITS + OFFSET_DIGITS])?;
        Some(Self { tag, offset })
    }

    /// The position that it says, of whichever stream.
    pub(in crate::broker) fn token(self) -> Token {
        Token { tag: self.tag, offset: self.offset }
    }

    /// The offset that it names in a stream. All zeros are the start of any stream.
    ///
    /// # Errors
    /// `Gone` for a position of an earlier stream of that name, and for one that is no longer kept; `Invalid` for one that
    /// this stream never gave.
    pub(crate) fn resolve(self, stream: Readable<'_>) -> Result<Offset, Error> {
        let Readable { tag, shared, start, tail } = stream;
        if self == (Self { tag: 0, offset: 0 }) {
            return Ok(start);
        }
        if self.tag < tag && shared.iter().all(|(shared, _)| *shared != self.tag) {
            return Err(Error::Gone("the offset is of an earlier stream of this name, which was deleted".into()));
        }
        if self.offset > tail.0 || Token::shared(shared, tag, Offset(self.offset)).tag != self.tag {
            return Err(Error::Invalid("the offset is not one that this stream has given".into()));
        }
        if self.offset < start.0 {
            return Err(Error::Gone("what is at the offset is no longer kept; -1 is the first that is".into()));
        }
        Ok(Offset(self.offset))
    }
}

fn write_digits(to: &mut [u8], mut number: u64) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("one digit");
        number /= 10;
    }
}

fn read_digits(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(token: Token) -> GivenToken {
        GivenToken::parse(&token.to_string()).expect("a token of ours")
    }

    fn stream(tag: u64, start: u64, tail: u64) -> Readable<'static> {
        Readable { tag, shared: &[], start: Offset(start), tail: Offset(tail) }
    }

    proptest! {
        // Fails when the offset stands before the tag, or a number is not padded.
        #[test]
        fn tokens_sort_by_bytes_as_positions_do(
            tags in (0..TAG_END, 0..TAG_END), offsets in (0..OFFSET_END, 0..OFFSET_END)
        ) {
            let (a, b) = (Token::new(tags.0, Offset(offsets.0)), Token::new(tags.1, Offset(offsets.1)));
            prop_assert_eq!(a.encode().cmp(&b.encode()), (tags.0, offsets.0).cmp(&(tags.1, offsets.1)));
            let c = Token::new(tags.0, Offset(offsets.1));
            prop_assert_eq!(a.encode().cmp(&c.encode()), offsets.0.cmp(&offsets.1));
        }

        #[test]
        fn a_token_reads_as_the_position_that_it_was_written_for(tag in 1..TAG_END, offset in 0..OFFSET_END) {
            let read = given(Token::new(tag, Offset(offset))).resolve(stream(tag, 0, offset));
            prop_assert_eq!(read.expect("its own stream"), Offset(offset));
        }

        // Fails when the last digits are part of the offset.
        #[test]
        fn small_numbers_added_behind_the_underscore_change_nothing(
            tag in 1..TAG_END, offset in 0..900_000_000_000u64, more in 0..10u64
        ) {
            let text = Token::new(tag, Offset(offset)).to_string();
            let (first, second) = text.split_once('_').expect("an underscore");
            let second: u64 = second.parse().expect("a number");
            prop_assert!(second < 1 << 53, "JavaScript counts on exactly from there");
            let text = format!("{first}_{:016}", second + more);
            let read = GivenToken::parse(&text).expect("a token").resolve(stream(tag, 0, offset));
            prop_assert_eq!(read.expect("the same position"), Offset(offset));
        }

        #[test]
        fn no_text_but_33_digits_with_an_underscore_is_a_token(text in "\\PC{0,40}") {
            let form = text.len() == TOKEN_BYTES && text.as_bytes()[HALF] == b'_'
                && text.bytes().enumerate().all(|(at, byte)| at == HALF || byte.is_ascii_digit());
            prop_assert_eq!(GivenToken::parse(&text).is_some(), form);
        }
    }

    // Fails when a fork gives tokens of its own for what it shares, or takes those of its source beyond that.
    #[test]
    fn a_fork_shares_the_tokens_of_its_source_up_to_where_it_left_it() {
        let shared = [(100, Offset(5)), (200, Offset(8))];
        let fork = Readable { tag: 300, shared: &shared, start: Offset(2), tail: Offset(10) };
        let tag_of = |offset| {
            if offset <= 5 {
                100
            } else if offset <= 8 {
                200
            } else {
                300
            }
        };
        for offset in 0..=10 {
            let token = Token::shared(&shared, 300, Offset(offset));
            assert_eq!(token, Token::new(tag_of(offset), Offset(offset)));
            for tag in [100, 200, 300] {
                let resolved = given(Token::new(tag, Offset(offset))).resolve(fork);
                match resolved {
                    Ok(at) => assert!(at == Offset(offset) && tag == tag_of(offset) && offset >= 2),
                    Err(Error::Gone(_)) => assert!(tag == tag_of(offset) && offset < 2),
                    Err(Error::Invalid(_)) => assert_ne!(tag, tag_of(offset)),
                    Err(error) => panic!("{error:?}"),
                }
            }
            let earlier = given(Token::new(250, Offset(offset))).resolve(fork);
            assert!(matches!(earlier, Err(Error::Gone(_))), "of a fork of that name before: {earlier:?}");
        }
    }

    #[test]
    fn a_token_has_the_form_that_clients_expect() {
        let text = Token::new(1_764_248_000_123, Offset(1_234_567_890_123)).to_string();
        assert_eq!(text, "1764248000123001_2345678901230000");
    }

    #[test]
    fn a_token_of_an_earlier_stream_is_gone_and_one_that_was_never_given_is_refused() {
        let (now, start) = (stream(1_000, 5, 9), Token::new(1_000, Offset(5)));
        assert_eq!(given(start).resolve(now).expect("kept"), Offset(5));
        let earlier = given(Token::new(999, Offset(7))).resolve(now);
        assert!(matches!(earlier, Err(Error::Gone(_))), "{earlier:?}");
        let trimmed = given(Token::new(1_000, Offset(4))).resolve(now);
        assert!(matches!(trimmed, Err(Error::Gone(_))), "{trimmed:?}");
        for (tag, offset) in [(1_000, 10), (1_001, 0), (1_001, 7), (TAG_END - 1, OFFSET_END - 1)] {
            let refused = given(Token::new(tag, Offset(offset))).resolve(now);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{tag} {offset}: {refused:?}");
        }
        let zeros = GivenToken::parse("0000000000000000_0000000000000000").expect("a token");
        assert_eq!(zeros.resolve(now).expect("the start"), Offset(5));
    }
}
