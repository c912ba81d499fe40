//! Whether a text is JSON, and what of a text stands in a JSON string as it is: both are looked at for every record that
//! is read, and take 32 bytes at a time where nothing is special.

/// How many bytes are looked at together; the compiler makes vector instructions of it.
const STRIDE: usize = 32;

/// Whether `text` is one JSON value (RFC 8259) whose brackets are nested at most `depth_max` deep, which is at most 128.
pub(super) fn is_json(text: &str, depth_max: u32) -> bool {
    debug_assert!(depth_max <= u128::BITS, "there is one bit per level");
    Checker { bytes: text.as_bytes(), at: 0 }.document(depth_max).is_some()
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

struct Checker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Checker<'_> {
    fn document(&mut self, depth_max: u32) -> Option<()> {
        // One bit per level that is open: 1 for an object.
        let (mut depth, mut objects) = (0_u32, 0_u128);
        loop {
            let opened = self.value()?;
            if let Some(object) = opened {
                if depth == depth_max {
                    return None;
                }
                (depth, objects) = (depth + 1, objects << 1 | u128::from(object));
                self.space();
                let close = if object { b'}' } else { b']' };
                if self.peek() != Some(close) {
                    if object {
                        self.key()?;
                    }
                    continue;
                }
            }
            // After a value, or before the end of an empty bracket: what comes is a comma, or ends brackets.
            loop {
                self.space();
                if depth == 0 {
                    return (self.at == self.bytes.len()).then_some(());
                }
                match (self.next()?, objects & 1 == 1) {
                    (b'}', true) | (b']', false) => (depth, objects) = (depth - 1, objects >> 1),
                    (b',', true) => {
                        self.key()?;
                        break;
                    }
                    (b',', false) => break,
                    (_, _) => return None,
                }
            }
        }
    }

    /// A value without brackets, or the begin of one with: then whether it is an object.
    fn value(&mut self) -> Option<Option<bool>> {
        self.space();
        match self.next()? {
            b'{' => return Some(Some(true)),
            b'[' => return Some(Some(false)),
            b'"' => self.string()?,
            b't' => self.word(b"rue")?,
            b'f' => self.word(b"alse")?,
            b'n' => self.word(b"ull")?,
            b'-' => {
                let first = self.next()?;
                self.number(first)?;
            }
            first => self.number(first)?,
        }
        Some(None)
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<()> {
        self.space();
        self.word(b"\"")?;
        self.string()?;
        self.space();
        self.word(b":")
    }

    /// The rest of a string, after its first quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.at += plain(&self.bytes[self.at..]);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.bytes.get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// A number whose first digit is `first`.
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn some_digits(&mut self) -> Option<()> {
        let begin = self.at;
        self.digits();
        (self.at > begin).then_some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn serde_says(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    fn is_judged_as_by_serde_json(texts: &[&str]) {
        for text in texts {
            assert_eq!(is_json(text, 100), serde_says(text), "{text:?}");
        }
    }

    #[test]
    fn numbers_and_words_are_json_or_not() {
        let numbers = "0|-0|01|-|+1|1.|.5|1.5|1e5|1E+5|1e-|1e|-1.25e-300|1e999|0x1|1 2|--1|1.e1|00|-01|0.0|0e0";
        let words = "true|tru|truex|null|nul|false|True|NaN|Infinity|nullnull|//| \t\r\n1 \t\r\n|\u{feff}1|1\u{0}|| ";
        is_judged_as_by_serde_json(&numbers.split('|').chain(words.split('|')).collect::<Vec<_>>());
    }

    #[test]
    fn strings_and_brackets_are_json_or_not() {
        let strings = r#""";";"a;"\";"\\";"\u00e9";"\ud800";"\u12g4";"\u12";"\x";"\/\b\f\n\r\t";'a';"é";"a"b"#;
        let arrays = "[];[ ];[,];[1,];[,1];[1];[1,2];[1 2];[;];[]];[[];[}];[1};[1]x;[[[]],[]]";
        let objects = r#"{};{ };{,};{"a"};{"a":};{"a":1};{"a":1,};{"a":1,"b":2};{a:1};{1:1};{]};{"a":1];{"a":1"b":2};{"a" : [ {} , {"b":[]} ] }"#;
        let all = strings.split(';').chain(arrays.split(';')).chain(objects.split(';'));
        is_judged_as_by_serde_json(&all.chain(["\"\u{1}\"", "\"\u{7f}\"", "\"\n\""]).collect::<Vec<_>>());
    }

    #[test]
    fn the_depth_is_that_of_both_brackets() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for (deep, fits) in [(1, true), (99, true), (100, true), (101, false), (5_000, false)] {
                let text = format!("{}1{}", open.repeat(deep), close.repeat(deep));
                assert_eq!(is_json(&text, 100), fits, "{open} {deep}");
            }
        }
        assert!(is_json(&format!("[{}]", vec!["[[]]"; 1_000].join(",")), 3), "brackets that are closed do not count");
        assert!(is_json(&"[".repeat(128).chars().chain("]".repeat(128).chars()).collect::<String>(), 128));
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

    /// JSON and what is nearly JSON.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "\"",
            "\\",
            "\"a\"",
            "\"k\":",
            "1",
            "-",
            "0",
            ".",
            "e",
            "true",
            "null",
            " ",
            "\n",
            "\\u00e9",
            "é",
            "\u{1}",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ]);
        prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_takes_is_taken_and_nothing_else(text in pieces()) {
            prop_assert_eq!(is_json(&text, 100), serde_says(&text), "{:?}", text);
        }

        #[test]
        fn a_value_that_is_changed_is_judged_as_serde_json_does(
            value in any_value(),
            pretty in any::<bool>(),
            change in prop::option::of((any::<prop::sample::Index>(), any::<char>())),
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("a value is JSON");
            prop_assert!(is_json(&text, 100));
            if let Some((at, to)) = change {
                let mut chars: Vec<char> = text.chars().collect();
                let at = at.index(chars.len());
                chars[at] = to;
                let text: String = chars.into_iter().collect();
                prop_assert_eq!(is_json(&text, 100), serde_says(&text), "{:?}", text);
            }
        }
    }
}
