//! Whether a text is JSON that may be embedded, and what of a text stands in a JSON string as it is: both are looked at for
//! every record that is read.

use serde::de::IgnoredAny;

/// How many bytes are looked at together; the compiler makes vector instructions of it.
const STRIDE: usize = 32;

/// Whether `text` is one JSON value whose brackets are nested at most `depth_max` deep.
pub(super) fn is_json(text: &str, depth_max: usize) -> bool {
    let brackets = || text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    serde_json::from_str::<IgnoredAny>(text).is_ok() && (brackets() <= depth_max || depth(text) <= depth_max)
}

/// How deep the brackets of a valid JSON text are nested.
fn depth(text: &str) -> usize {
    let (mut deepest, mut now, mut in_string, mut escaped) = (0, 0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// How many bytes from the start on have no special meaning in a JSON string: all but quote, backslash and control
/// characters.
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    for chunk in bytes.chunks_exact(STRIDE) {
        // Without a branch per byte.
        if chunk.iter().fold(false, |special, &byte| special | is_special(byte)) {
            break;
        }
        at += STRIDE;
    }
    at + bytes[at..].iter().position(|&byte| is_special(byte)).unwrap_or(bytes.len() - at)
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_is_that_of_both_brackets() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for (deep, fits) in [(1, true), (99, true), (100, true), (101, false), (5_000, false)] {
                let text = format!("{}1{}", open.repeat(deep), close.repeat(deep));
                assert_eq!(is_json(&text, 100), fits, "{open} {deep}");
            }
        }
        assert!(is_json(&format!("[{}]", vec!["[[]]"; 1_000].join(",")), 3), "brackets that are closed do not count");
        assert!(is_json("[\"[[[\\\"[[\"]", 1), "brackets in strings do not count");
    }

    #[test]
    fn plain_ends_at_the_first_special_byte_wherever_it_stands() {
        for len in 0..100 {
            let text = vec![b'x'; len];
            assert_eq!(plain(&text), len);
            for at in 0..len {
                for special in [b'"', b'\\', 0, 0x1f] {
                    let mut text = text.clone();
                    text[at] = special;
                    assert_eq!(plain(&text), at);
                }
            }
        }
        assert_eq!(plain("é\u{7f}\u{80}/".as_bytes()), 6);
    }
}
