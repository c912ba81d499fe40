//! The example file, the order of sources, and what is refused.

use super::*;

/// The example with every setting switched on: lines of the form `#name = value`.
fn example() -> String {
    include_str!("../../plinth.toml")
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn keys_of(given: &Given) -> Vec<String> {
    // `Debug` lists every field, so that a new setting cannot be forgotten here.
    format!("{given:#?}")
        .lines()
        .filter_map(|line| line.strip_prefix("    ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split_once(": ").map(|(key, _)| key.to_owned()))
        .collect()
}

#[test]
fn the_example_file_is_read_and_sets_nothing_as_it_stands() {
    let given = Given::parse(include_str!("../../plinth.toml")).expect("parses");
    assert_eq!(given, Given::default());
}

#[test]
fn the_example_file_lists_every_setting_with_its_default() {
    let given = Given::parse(&example()).expect("every line of the example parses");
    for key in keys_of(&Given::default()) {
        assert!(example().lines().any(|line| line.starts_with(&format!("{key} = "))), "{key} is not in plinth.toml");
    }
    let unset = Given { root_key: None, root_key_file: None, root_key_previous: None, ..given.clone() };
    let unset = Given { public_url: None, tls_cert: None, tls_key: None, ..unset };
    let unset = Given { otlp_endpoint: None, trace_ratio: None, private_hosts: None, ..unset };
    assert_eq!(Settings::complete(unset), Settings::default());
    assert!(
        given.root_key.is_some()
            && given.root_key_file.is_some()
            && given.root_key_previous.is_some()
            && given.public_url.is_some()
            && given.tls_cert.is_some()
            && given.tls_key.is_some()
    );
    assert!(given.otlp_endpoint.is_some() && given.trace_ratio == Some(Ratio::default()));
}

#[test]
fn an_unknown_key_is_refused_and_named_with_its_line() {
    let (line, message) = Given::parse("listen = \"127.0.0.1:1\"\nflush_intervall = \"1s\"\n").expect_err("unknown");
    assert_eq!(line, 2);
    assert!(message.contains("flush_intervall"), "{message}");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let flags = Given { listen: Some("127.0.0.1:1".to_owned()), ..Given::default() };
    let file =
        Given::parse("listen = \"127.0.0.1:2\"\ncache_bytes = \"1GiB\"\nmemory_bytes = 16777216").expect("parses");
    let settings = Settings::complete(flags.or(file));
    assert_eq!(settings.listen, "127.0.0.1:1");
    assert_eq!(settings.cache_bytes, 1 << 30);
    assert_eq!(settings.memory_bytes, 16 << 20);
    assert_eq!(settings.store, Settings::default().store);
}

#[test]
fn a_weak_root_key_is_refused_and_never_shown() {
    for weak in ["changeme", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "with a space in it, and long enough for all"]
    {
        let given = Given { root_key: weak.parse().ok(), ..Given::default() };
        assert!(!format!("{given:?}").contains(weak));
        let error = Settings::load(given, None).expect_err("weak").to_string();
        assert!(error.starts_with("root key ") && !error.contains(weak), "{error}");
    }
    let strong = "f3b1c07d5a9e4628b7c2d1e0a5948376".parse().ok();
    assert!(Settings::load(Given { root_key: strong, ..Given::default() }, None).is_ok());
}

const STRONG: &str = "f3b1c07d5a9e4628b7c2d1e0a5948376";

#[test]
fn a_root_key_may_stand_in_a_file_and_is_held_to_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("root-key");
    let given = || Given { root_key_file: Some(path.clone()), ..Given::default() };
    let missing = Settings::load(given(), None).expect_err("there is no file").to_string();
    assert!(missing.contains("root-key"), "{missing}");
    for text in [STRONG.to_owned(), format!("{STRONG}\n"), format!("{STRONG}\r\n")] {
        std::fs::write(&path, text).expect("written");
        let settings = Settings::load(given(), None).expect("loads");
        assert_eq!(settings.root_key.as_ref().map(RootKey::reveal), Some(STRONG));
    }
    let twice = Given { root_key: STRONG.parse().ok(), ..given() };
    assert!(Settings::load(twice, None).expect_err("twice").to_string().contains("twice"));
    for weak in ["", "changeme\n", "f3b1c07d5a9e4628 b7c2d1e0a5948376"] {
        std::fs::write(&path, weak).expect("written");
        let error = Settings::load(given(), None).expect_err("weak").to_string();
        assert!(error.starts_with("root key ") && !error.contains("changeme"), "{error}");
    }
}

#[test]
fn the_root_key_from_before_stands_beside_another_one_and_is_as_strong() {
    let other = "0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d";
    let load = |newest: Option<&str>, previous: &str| {
        let root_key = newest.and_then(|key| key.parse().ok());
        Settings::load(Given { root_key, root_key_previous: previous.parse().ok(), ..Given::default() }, None)
    };
    assert!(load(Some(STRONG), other).is_ok());
    for (newest, previous) in [(None, other), (Some(STRONG), STRONG), (Some(STRONG), "changeme")] {
        let error = load(newest, previous).expect_err(previous).to_string();
        assert!(error.starts_with("root key ") && !error.contains(previous), "{error}");
    }
}

#[test]
fn unknown_variables_are_refused_by_name_and_service_links_are_not() {
    let known = BTreeSet::from(["PLINTH_LISTEN".to_owned()]);
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into_iter();
    let fine =
        ["PLINTH_LISTEN", "PLINTH_TEST_SEED", "PLINTH_PORT", "PLINTH_PORT_80_TCP", "PLINTH_SERVICE_HOST", "PATH"];
    assert!(check_environment(&known, names(&fine)).is_ok());
    let error = check_environment(&known, names(&["PLINTH_LISTEM", "PLINTH_STOER"])).expect_err("unknown").to_string();
    assert!(error.contains("PLINTH_LISTEM, PLINTH_STOER"), "{error}");
}

#[test]
fn sizes_and_times_say_their_units() {
    assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
    assert_eq!("500 MB".parse(), Ok(ByteSize(500_000_000)));
    assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
    assert_eq!("auto".parse(), Ok(FlushInterval(None)));
    for bad in ["", "64 elephants", "-1", "99999999999TiB"] {
        assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
    }
    assert!("10".parse::<Span>().is_err());
}

#[test]
fn a_ratio_is_a_part_of_all_also_in_the_file() {
    for (text, per_million) in [("0", 0), ("0.01", 10_000), ("1", 1_000_000), ("0.000001", 1)] {
        assert_eq!(text.parse(), Ok(Ratio { per_million }));
        let given = Given::parse(&format!("trace_ratio = {text}")).expect("parses");
        assert_eq!(given.trace_ratio, Some(Ratio { per_million }));
    }
    for bad in ["", "-0.1", "1.1", "NaN", "1%"] {
        assert!(bad.parse::<Ratio>().is_err(), "{bad}");
    }
}

#[test]
fn the_address_of_the_collector_has_no_secret_and_a_ratio_needs_one() {
    let with = |endpoint: Option<&str>, ratio| {
        let given = Given { otlp_endpoint: endpoint.map(str::to_owned), trace_ratio: ratio, ..Given::default() };
        Settings::load(given, None)
    };
    assert!(with(Some("http://localhost:4318"), Some(Ratio::default())).is_ok());
    assert!(with(Some("https://collector.example/otlp"), None).is_ok());
    for bad in ["localhost:4318", "grpc://host", "http://user:pw@host", "http://host/?key=x", "http://host/#x"] {
        let error = with(Some(bad), None).expect_err("refused").to_string();
        assert!(error.starts_with("setting otlp_endpoint must be") && !error.contains("pw"), "{error}");
    }
    assert!(with(None, Some(Ratio::default())).expect_err("refused").to_string().contains("otlp_endpoint"));
}
