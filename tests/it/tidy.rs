//! Reads the sources and checks what the compiler does not: module docs first, length of files and functions, and who
//! may name whom (ARCHITECTURE.md, "Layers"). And the documents: README has every setting, named files exist.
//!
//! It looks at words, not at meaning: comments and literals are blanked out, then names and braces are looked
//! for in what is left. That is enough to catch an honest slip, and needs no parser.
//!
//! `OLD_OFFENDERS` may only shrink: an entry whose file has become clean fails the test until it is removed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that break a rule for now, each with the rule. Never add one to get a change in.
const OLD_OFFENDERS: &[(Rule, &str)] = &[];

/// Folders with our Rust sources, from the root of the repository.
const FOLDERS: [&str; 10] = [
    "api/src",
    "storage/src",
    "storage/tests",
    "src",
    "tests/it",
    "tests/audit/src",
    "tests/model/src",
    "tests/model/tests",
    "tests/sim/src",
    "tests/sim/tests",
];

/// Words that only some places may name. A word is a path as it is written: `axum` also finds `axum::Router`.
const WORDS: &[Words] = &[
    Words {
        rule: Rule::Web,
        words: &["axum", "hyper", "hyper_util"],
        anywhere_in: &["api/src/", "storage/src/", "src/"],
        // The benchmark has its own lean client, and the bare handler that it compares with.
        but_in: &[
            "src/http/",
            "src/ws/",
            "src/streams/",
            "src/console.rs",
            "src/server",
            "src/app.rs",
            "src/cli/bench/",
        ],
    },
    Words {
        rule: Rule::RocksDb,
        words: &["rocksdb"],
        anywhere_in: &["api/src/", "storage/src/", "src/"],
        but_in: &["storage/src/state/rocks.rs", "storage/src/cache/"],
    },
    Words {
        rule: Rule::StorePut,
        words: &[".put", ".put_opts", ".put_multipart", ".put_multipart_opts", ".copy_if_not_exists"],
        anywhere_in: &["storage/src/"],
        // `store.rs` asks by a probe whether the store does what `slot.rs` relies on, `meter.rs` and `directory.rs` are stores;
        // the others put into RocksDB and into bytes.
        but_in: &[
            "storage/src/slot.rs",
            "storage/src/store.rs",
            "storage/src/directory.rs",
            "storage/src/meter.rs",
            "storage/src/state/",
            "storage/src/cache/",
            "storage/src/shard/rows.rs",
        ],
    },
    Words {
        rule: Rule::StoreDelete,
        words: &[".delete", ".delete_stream"],
        anywhere_in: &["storage/src/"],
        // The probe removes its own; the others delete from RocksDB and count.
        but_in: &[
            "storage/src/slot.rs",
            "storage/src/store.rs",
            "storage/src/directory.rs",
            "storage/src/meter.rs",
            "storage/src/state/",
            "storage/src/cache/",
        ],
    },
    Words {
        rule: Rule::StoreDelete,
        words: &["slot::delete"],
        anywhere_in: &["storage/src/"],
        but_in: &["storage/src/shard/sweep.rs"],
    },
    Words { rule: Rule::StorePut, words: &["object_store"], anywhere_in: &["api/src/", "src/"], but_in: &[] },
    Words {
        rule: Rule::Layer,
        words: &["plinth_storage", "axum", "tokio", "futures", "reqwest"],
        anywhere_in: &["api/src/"],
        but_in: &[],
    },
    Words {
        rule: Rule::Layer,
        words: &["plinth_api", "serde_json", "serde", "http", "reqwest"],
        anywhere_in: &["storage/src/"],
        but_in: &[],
    },
    Words {
        rule: Rule::Layer,
        words: &["crate::http", "crate::ws", "crate::streams", "crate::console", "crate::app", "crate::server"],
        anywhere_in: &["src/auth/", "src/broker/", "src/render.rs", "src/parse.rs", "src/problem.rs", "src/config.rs"],
        but_in: &[],
    },
    Words {
        rule: Rule::Layer,
        words: &["crate::config", "crate::cli"],
        anywhere_in: &["src/"],
        but_in: &["src/main.rs", "src/cli/", "src/config.rs"],
    },
    Words {
        rule: Rule::Layer,
        words: &[
            "opentelemetry",
            "opentelemetry_sdk",
            "opentelemetry_otlp",
            "tracing_opentelemetry",
            "tracing_subscriber",
        ],
        anywhere_in: &["api/src/", "storage/src/", "src/"],
        but_in: &["src/telemetry/"],
    },
    Words {
        rule: Rule::Anyhow,
        words: &["anyhow"],
        anywhere_in: &["api/src/", "storage/src/", "src/"],
        but_in: &["src/main.rs", "src/cli/"],
    },
    Words {
        rule: Rule::LooseTask,
        words: &["tokio::spawn", "tokio::task::spawn"],
        anywhere_in: &["api/src/", "storage/src/", "src/"],
        but_in: &[],
    },
];

/// Parts of object names; `storage/src/layout.rs` alone puts them together.
const OBJECT_NAME_PARTS: [&str; 7] =
    ["session/", "shard/", "segment/", "/wal/", "/claim/", "/checkpoint/", "/heartbeat"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// A file begins with `//!`; what a `tests.rs` is for, its parent says.
    ModuleDocs,
    /// A file has at most `FILE_LINES_MAX` lines without its tests.
    FileLength,
    /// The body of a function has at most `FUNCTION_LINES_MAX` lines of code.
    FunctionLength,
    /// Only the front names axum and hyper.
    Web,
    /// Only the state store and the page cache name RocksDB.
    RocksDb,
    /// Only `slot.rs` writes to the object store; nothing above `storage` knows that there is one.
    StorePut,
    /// Only `slot.rs` deletes from the object store, and only the sweep asks it to.
    StoreDelete,
    /// Only `layout.rs` spells object names.
    ObjectName,
    /// A layer does not know the one above it.
    Layer,
    /// Errors without a type are for `main` and the command line.
    Anyhow,
    /// A task has an owner.
    LooseTask,
}

struct Words {
    rule: Rule,
    words: &'static [&'static str],
    anywhere_in: &'static [&'static str],
    but_in: &'static [&'static str],
}

#[derive(Debug)]
struct Violation {
    rule: Rule,
    path: String,
    line: usize,
    what: String,
}

/// A source file whose comments and literals are out of the way.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
    /// `text` line by line, with spaces for comments and quotes for literals.
    code: String,
    /// Line and content of each string literal.
    literals: Vec<(usize, String)>,
    /// For each line: is it part of a `#[cfg(test)]` item, or the file a test altogether?
    test: Vec<bool>,
}

#[test]
fn sources_keep_to_layers_lengths_and_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut violations = Vec::new();
    let mut files = 0;
    for folder in FOLDERS {
        for path in rust_files(root, folder) {
            let text = fs::read_to_string(root.join(&path)).expect("a listed file can be read");
            violations.extend(check(&path, &text));
            files += 1;
        }
    }
    assert!(files > 20, "only {files} sources found below {}: FOLDERS is out of date", root.display());
    let report = report(&violations, OLD_OFFENDERS);
    assert!(report.is_empty(), "\n{report}");
}

/// What is wrong, one line each: violations that no entry of `old` covers, and entries that cover nothing.
fn report(violations: &[Violation], old: &[(Rule, &str)]) -> String {
    let found: BTreeSet<(Rule, &str)> = violations.iter().map(|v| (v.rule, v.path.as_str())).collect();
    let mut report = String::new();
    for Violation { rule, path, line, what } in violations {
        if !old.contains(&(*rule, path)) {
            writeln!(report, "{path}:{line}: {rule:?}: {what}").expect("a string takes all");
        }
    }
    for (rule, path) in old.iter().filter(|entry| !found.contains(entry)) {
        writeln!(report, "{path}: {rule:?}: clean now, so remove it from OLD_OFFENDERS").expect("a string takes all");
    }
    report
}

fn check(path: &str, text: &str) -> Vec<Violation> {
    let source = Source::read(path, text);
    let mut found = Vec::new();
    let mut add = |rule, line, what| found.push(Violation { rule, path: path.to_owned(), line, what });
    if !text.starts_with("//!") && !path.ends_with("/tests.rs") {
        add(Rule::ModuleDocs, 1, "a file begins with //! that says what it does and what it must not know".to_owned());
    }
    let lines = source.test.iter().filter(|test| !**test).count();
    if lines > FILE_LINES_MAX {
        add(Rule::FileLength, lines, format!("{lines} lines without tests exceed the limit of {FILE_LINES_MAX}"));
    }
    for (line, name, length) in source.functions() {
        if length > FUNCTION_LINES_MAX {
            let what = format!("function {name} has {length} lines, more than the limit of {FUNCTION_LINES_MAX}");
            add(Rule::FunctionLength, line, what);
        }
    }
    for Words { rule, words, anywhere_in, but_in } in WORDS {
        if !source.is_below(anywhere_in) || source.is_below(but_in) || source.is_below(&["storage/src/testing/"]) {
            continue;
        }
        for (line, word) in source.words(words) {
            add(*rule, line, format!("{word} is not to be named here, only in {but_in:?}"));
        }
    }
    if source.is_below(&["storage/src/", "src/"]) && path != "storage/src/layout.rs" {
        for (line, part) in source.object_names() {
            add(Rule::ObjectName, line, format!("the object name part {part:?} belongs to layout.rs"));
        }
    }
    found
}

impl<'a> Source<'a> {
    fn read(path: &'a str, text: &'a str) -> Self {
        let Blanked { code, literals } = Blanked::from(text);
        let all_test = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        let mut test = vec![all_test; code.lines().count()];
        for (at, _) in code.match_indices("#[cfg(test)]") {
            let from = line_of(&code, at);
            let to = item_end(&code, at).map_or(from, |end| line_of(&code, end));
            test[from - 1..to].fill(true);
        }
        Self { path, text, code, literals, test }
    }

    fn is_below(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Line, name and lines of code of the body of each function.
    fn functions(&self) -> Vec<(usize, &str, usize)> {
        let mut functions = Vec::new();
        for at in find_words(&self.code, "fn") {
            let name = self.code[at + 2..].trim_start();
            let name = &name[..name.find(|c: char| !is_word(c)).unwrap_or(name.len())];
            let Some((open, close)) = body(&self.code, at).filter(|_| !name.is_empty()) else { continue };
            let inside = self.code[open + 1..close].lines().filter(|line| !line.trim().is_empty()).count();
            functions.push((line_of(&self.code, at), name, inside));
        }
        functions
    }

    /// Where one of `words` is named outside tests.
    fn words(&self, words: &[&'static str]) -> Vec<(usize, &'static str)> {
        let mut found = Vec::new();
        for word in words {
            let places = find_words(&self.code, word).chain(find_grouped(&self.code, word));
            found.extend(places.map(|at| (line_of(&self.code, at), *word)));
        }
        found.retain(|(line, _)| !self.test[line - 1]);
        found
    }

    fn object_names(&self) -> Vec<(usize, &'static str)> {
        let outside_tests = self.literals.iter().filter(|(line, _)| !self.test[line - 1]);
        outside_tests
            .filter_map(|(line, literal)| {
                OBJECT_NAME_PARTS.iter().find(|part| literal.contains(**part)).map(|part| (*line, *part))
            })
            .filter(|(line, _)| !self.text.lines().nth(line - 1).is_some_and(|text| text.contains("/v1/")))
            .collect()
    }
}

/// Rust source in which only code is left.
#[derive(Default)]
struct Blanked {
    code: String,
    literals: Vec<(usize, String)>,
}

impl Blanked {
    fn from(text: &str) -> Self {
        let mut blanked = Self::default();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let named_before = blanked.code.chars().last().is_some_and(is_word);
            let len = if rest.starts_with("//") {
                blanked.fill(rest, rest.find('\n').unwrap_or(rest.len()), ' ')
            } else if rest.starts_with("/*") {
                blanked.fill(rest, block_comment(rest), ' ')
            } else if let Some(len) = raw_string(rest).filter(|_| !named_before) {
                blanked.literal(rest, len)
            } else if first == '"' {
                blanked.literal(rest, quoted(rest, '"'))
            } else if first == '\'' && is_char_literal(rest) {
                blanked.fill(rest, quoted(rest, '\''), '"')
            } else {
                blanked.code.push(first);
                first.len_utf8()
            };
            rest = &rest[len..];
        }
        blanked
    }

    /// Quotes in place of a literal: its lines stay lines of code.
    fn literal(&mut self, rest: &str, len: usize) -> usize {
        let line = self.code.matches('\n').count() + 1;
        self.literals.push((line, rest[..len].to_owned()));
        self.fill(rest, len, '"')
    }

    fn fill(&mut self, rest: &str, len: usize, with: char) -> usize {
        self.code.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { with }));
        len
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of a raw string literal that begins `rest`.
fn raw_string(rest: &str) -> Option<usize> {
    let after_prefix = ["br", "cr", "r"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = after_prefix.len() - after_prefix.trim_start_matches('#').len();
    let content = after_prefix[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let head = rest.len() - content.len();
    Some(content.find(&end).map_or(rest.len(), |at| head + at + end.len()))
}

/// The length of a literal in `quote`s that begins `rest`.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Places of `word` where no letter joins it on either side. A word that begins with a dot is a call: `(` follows.
fn find_words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    let call = word.starts_with('.');
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().last();
        let after = code[at + word.len()..].chars().next();
        let path_goes_on = !call && (before == Some(':') || before == Some('.')) && !code[..at].ends_with("\n::");
        !after.is_some_and(is_word)
            && (if call { after == Some('(') } else { !before.is_some_and(is_word) && !path_goes_on })
    })
}

/// Places where a word of two parts, `crate::http`, is named through a group: `crate::{auth, http::Front}`.
fn find_grouped<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    let (head, member) = word.rsplit_once("::").unwrap_or(("", ""));
    let groups = find_words(code, head).filter(move |_| !member.is_empty());
    groups.filter(move |&at| {
        let Some(group) = code[at + head.len()..].strip_prefix("::{") else { return false };
        let mut depth = 0;
        let mut first_in_item = true;
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => return false,
                '}' => depth -= 1,
                ',' if depth == 0 => first_in_item = true,
                c if is_word(c) && first_in_item => {
                    first_in_item = false;
                    let name = &group[place..];
                    if name[..name.find(|c| !is_word(c)).unwrap_or(name.len())] == *member {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    })
}

/// The braces of the body of the function whose `fn` is at `at`; none for a declaration.
fn body(code: &str, at: usize) -> Option<(usize, usize)> {
    let mut depth = 0;
    for (place, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some((at + place, closing_brace(code, at + place))),
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (place, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + place;
        }
    }
    code.len() - 1
}

/// The end of the item after the attribute at `at`: its closing brace or its semicolon.
fn item_end(code: &str, at: usize) -> Option<usize> {
    let item = at + code[at..].find(']')? + 1;
    let stop = item + code[item..].find(['{', ';'])?;
    Some(if code[stop..].starts_with('{') { closing_brace(code, stop) } else { stop })
}

fn rust_files(root: &Path, folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return files };
    for entry in entries {
        let entry = entry.expect("a folder of the repository can be read");
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files.extend(rust_files(root, &path));
        } else if path.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Each rule on a source that breaks it and on its neighbour that does not: the proof that the test above can fail.
#[test]
fn each_rule_reports_what_it_forbids_and_nothing_else() {
    let long_file = format!("//! Docs.\n{}", "const A: u8 = 0;\n".repeat(FILE_LINES_MAX));
    let long_tests =
        format!("//! Docs.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 0;\n".repeat(FILE_LINES_MAX));
    let long_function = format!("//! Docs.\nfn long() {{\n{}}}\n", "    work();\n".repeat(FUNCTION_LINES_MAX + 1));
    let long_comment = format!("//! Docs.\nfn short() {{\n{}}}\n", "    // why\n".repeat(FUNCTION_LINES_MAX + 1));
    let cases: &[(&str, &str, Option<Rule>)] = &[
        ("src/app.rs", "use std::fmt;\n", Some(Rule::ModuleDocs)),
        ("src/app.rs", "//! Docs.\nuse std::fmt;\n", None),
        ("src/app/tests.rs", "use super::*;\n", None),
        ("src/app.rs", &long_file, Some(Rule::FileLength)),
        ("src/app.rs", &long_tests, None),
        ("src/app.rs", &long_function, Some(Rule::FunctionLength)),
        ("src/app.rs", &long_comment, None),
        ("src/broker/mod.rs", "//! Docs.\nuse axum::Json;\n", Some(Rule::Web)),
        ("src/broker/mod.rs", "//! Docs.\nfn f() { hyper::rt() }\n", Some(Rule::Web)),
        ("src/broker/mod.rs", "//! Docs.\n// axum is above\nconst A: &str = \"axum\";\n", None),
        ("src/http/mod.rs", "//! Docs.\nuse axum::Json;\n", None),
        ("storage/src/log.rs", "//! Docs.\nuse rocksdb::DB;\n", Some(Rule::RocksDb)),
        ("storage/src/cache/disk.rs", "//! Docs.\nuse rocksdb::DB;\n", None),
        ("storage/src/wal/writer.rs", "//! Docs.\nfn f() { store.put(path, bytes); }\n", Some(Rule::StorePut)),
        ("storage/src/wal/writer.rs", "//! Docs.\nfn f() { buffer.put_u32_le(1); }\n", None),
        ("storage/src/slot.rs", "//! Docs.\nfn f() { store.put_opts(path, bytes, create); }\n", None),
        ("src/broker/mod.rs", "//! Docs.\nuse object_store::path::Path;\n", Some(Rule::StorePut)),
        ("storage/src/wal/writer.rs", "//! Docs.\nfn f() { store.delete(path); }\n", Some(Rule::StoreDelete)),
        ("storage/src/wal/writer.rs", "//! Docs.\nfn f() { slot::delete(stores, paths); }\n", Some(Rule::StoreDelete)),
        (
            "storage/src/shard/sweep.rs",
            "//! Docs.\nfn f() { slot::delete(stores, paths); self.delete(paths); }\n",
            Some(Rule::StoreDelete),
        ),
        ("storage/src/shard/sweep.rs", "//! Docs.\nfn f() { slot::delete(stores, paths); }\n", None),
        ("storage/src/slot.rs", "//! Docs.\nfn f() { store.delete_stream(paths); }\n", None),
        ("storage/src/shard/claim.rs", "//! Docs.\nconst A: &str = \"shard/{}/claim/\";\n", Some(Rule::ObjectName)),
        ("storage/src/layout.rs", "//! Docs.\nconst A: &str = \"shard/{}/claim/\";\n", None),
        ("storage/src/log.rs", "//! Docs.\nuse plinth_api::limits;\n", Some(Rule::Layer)),
        ("src/auth/mod.rs", "//! Docs.\nuse crate::{broker::Error, http::Front};\n", Some(Rule::Layer)),
        ("src/auth/mod.rs", "//! Docs.\nuse crate::{broker::{http, Error}, auth};\n", None),
        ("src/http/mod.rs", "//! Docs.\nuse crate::config::Config;\n", Some(Rule::Layer)),
        ("src/broker/mod.rs", "//! Docs.\nfn f() -> anyhow::Result<()> { Ok(()) }\n", Some(Rule::Anyhow)),
        ("src/cli/serve.rs", "//! Docs.\nfn f() -> anyhow::Result<()> { Ok(()) }\n", None),
        ("src/broker/mod.rs", "//! Docs.\nfn f() { tokio::spawn(work()); }\n", Some(Rule::LooseTask)),
        ("src/broker/mod.rs", "//! Docs.\n#[cfg(test)]\nmod tests {\n    fn f() { tokio::spawn(work()); }\n}\n", None),
    ];
    for (path, text, rule) in cases {
        let found: Vec<Rule> = check(path, text).into_iter().map(|violation| violation.rule).collect();
        assert_eq!(found, rule.iter().copied().collect::<Vec<_>>(), "{path}: {text:.120}");
    }
}

#[test]
fn the_readme_names_every_setting_with_its_default() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("it is in the repository");
    let (settings, readme) = (read("plinth.toml"), read("README.md"));
    let settings = settings.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    let settings: Vec<_> =
        settings.filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect();
    assert!(settings.len() > 5, "plinth.toml has no settings of the form `#name = value`");
    for (name, value) in settings {
        let cell = format!("| `PLINTH_{}` |", name.to_uppercase());
        let row =
            readme.lines().find(|line| line.starts_with(&cell)).unwrap_or_else(|| panic!("README has no row {cell}"));
        let default = format!("| `{}` |", value.trim_matches('"'));
        let has_none = name.starts_with("root_key")
            || ["public_url", "tls_cert", "tls_key", "otlp_endpoint", "private_hosts"].contains(&name);
        assert!(has_none || row.contains(&default), "README: {row} does not show {default}");
    }
}

#[test]
fn the_documents_name_only_sources_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<String> = FOLDERS.iter().flat_map(|folder| rust_files(root, folder)).collect();
    for document in ["README.md", "ARCHITECTURE.md", "docs/format.md"] {
        let text = fs::read_to_string(root.join(document)).expect("it is in the repository");
        for name in text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && !name.contains(' ')) {
            let exists = sources.iter().any(|path| path == name || path.ends_with(&format!("/{name}")));
            assert!(exists, "{document} names {name}, which is not there");
        }
    }
}

#[test]
fn literals_and_comments_hide_braces_from_the_count() {
    let text = "//! Docs.\nfn f<'a>(c: char) -> &'a str {\n    /* { /* { */ */\n    let _ = ('{', '\\'', b'\"', r#\"}\"{\"#);\n    \"}\\\"{\"\n}\nfn g() {}\n";
    let source = Source::read("src/app.rs", text);
    assert_eq!(source.functions(), [(2, "f", 2), (7, "g", 0)]);
    assert_eq!(source.code.lines().count(), text.lines().count());
}

#[test]
fn an_old_offender_that_is_clean_must_leave_the_list() {
    let violations = check("src/app.rs", "use std::fmt;\n");
    assert!(report(&violations, &[]).contains("src/app.rs:1: ModuleDocs"));
    assert_eq!(report(&violations, &[(Rule::ModuleDocs, "src/app.rs")]), "");
    assert!(report(&[], &[(Rule::ModuleDocs, "src/app.rs")]).contains("remove it from OLD_OFFENDERS"));
}
