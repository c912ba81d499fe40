//! Fuzz targets of what streams read: tokens, and the messages of a JSON body.

use bytes::Bytes;
use serde_json::Value;

use super::json::split;
use super::token::GivenToken;
use crate::fuzz::{ITERATIONS, text};

// Fails when a token has two spellings that differ in more than the digits that are not read.
#[test]
fn a_token_that_is_read_is_written_again_as_it_came_but_for_its_last_digits() {
    const PIECES: &[&str] =
        &["0000000000000000", "_", "17", "999999", "0123456789", "9", "-", "+", " ", "é", "\u{0}", "\u{ff11}"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, Option<(u64, u64)>)>().for_each(
        |(picks, whole)| {
            let given = match whole {
                Some((first, second)) => {
                    format!("{first:016}_{second:016}{}", text(PIECES, &picks[..picks.len().min(1)]))
                }
                None => text(PIECES, picks),
            };
            if let Some(token) = GivenToken::parse(&given) {
                let written = token.token().to_string();
                assert_eq!((written.len(), &written[..29]), (given.len(), &given[..29]));
            }
        },
    );
}

// Fails when a message is not what an array has at its place, when one is left out, or when what is no JSON is taken.
#[test]
fn a_body_is_split_into_the_values_that_it_has() {
    const PIECES: &[&str] = &[
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"a\"",
        "\"\\n\"",
        "\"é\"",
        "\"",
        "\\",
        "1",
        "-0.5",
        "true",
        "null",
        " ",
        "\n",
        "\r\n",
        "\t",
        "[1,2]",
        "{\"a\":[{}]}",
        "\u{feff}",
        "\u{0}",
    ];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, u8)>().for_each(|(picks, wrap)| {
        let given = match wrap % 3 {
            0 => text(PIECES, picks),
            1 => format!("[{}]", text(PIECES, picks)),
            _ => format!("[{}]", picks.iter().map(|pick| text(PIECES, &[*pick])).collect::<Vec<_>>().join(",")),
        };
        let split = split(&Bytes::from(given.clone()), usize::MAX);
        let Ok(value) = serde_json::from_str::<Value>(&given) else {
            assert!(split.is_err(), "{given:?}");
            return;
        };
        let expected = if let Value::Array(values) = value { values } else { vec![value] };
        let messages = split.expect("it is JSON");
        assert!(messages.iter().all(|message| !message.contains(&b'\n') && !message.contains(&b'\r')), "{given:?}");
        let read = messages.iter().map(|message| serde_json::from_slice::<Value>(message).expect("a message is JSON"));
        assert_eq!(read.collect::<Vec<_>>(), expected, "{given:?}");
    });
}
