use std::time::Duration;

use proptest::prelude::*;

use super::*;

crate::config! {
    /// Test section.
    pub(super) struct Group {
        /// Members; above it, fan-out
        /// goes by subject.
        pub small_group: u32 = 200, "members", restart;
        /// Wait of a merged write.
        pub flush_window: Period = Period::ms(20), "", live;
        /// Kept for resending.
        pub resend_cap: ByteSize = ByteSize::mib(8), "", live;
        /// Name | shown.
        pub name: String = "x".to_owned(), "", live;
        /// Key.
        pub key: Secret = Secret::default(), "", restart;
        /// Addresses.
        pub peers: Vec<String> = vec![], "", restart;
    }
    check check_group;
}

fn check_group(group: &Group) -> Vec<Problem> {
    if group.small_group == 0 { vec![Problem::new("small_group", "must be at least 1")] } else { vec![] }
}

crate::sections! {
    /// Test root.
    pub(super) struct Root {
        /// Groups.
        pub group: Group,
        /// Logs.
        pub log: crate::telemetry::LogConfig,
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn stronger_layers_win_and_are_named() {
    let loaded = Layers::new()
        .toml("linnet.toml", "[group]\nsmall_group = 10\nflush_window = '5ms'\nresend_cap = '1KiB'")
        .env(env(&[("LINNET_GROUP__SMALL_GROUP", "20"), ("LINNET_GROUP__FLUSH_WINDOW", "7ms"), ("LINNET_TEST", "1")]))
        .overrides(["group.small_group=30"])
        .load::<Root>()
        .expect("valid");
    let group = &loaded.config.group;
    assert_eq!((group.small_group, *group.flush_window), (30, Duration::from_millis(7)));
    assert_eq!(group.resend_cap, ByteSize(1024));
    let sources =
        ["small_group", "flush_window", "resend_cap", "name"].map(|key| loaded.source(&format!("group.{key}")));
    assert_eq!(sources, ["command line", "LINNET_GROUP__FLUSH_WINDOW", "linnet.toml", "default"]);
}

#[test]
fn every_problem_is_reported_at_once_with_its_key() {
    let problems = Layers::new()
        .toml("f", "[group]\nsmall_group = 'many'\nflush_windw = '1ms'\nresend_cap = 5\n[nope]\na = 1")
        .env(env(&[("LINNET_LOG__FORMAT", "xml")]))
        .overrides(["group.small_group=0", "junk"])
        .load::<Root>()
        .expect_err("invalid");
    let text = problems.to_string();
    for part in [
        "group.small_group: invalid type: found string \"many\", expected u32 (f)",
        "group.flush_windw: unknown key; did you mean group.flush_window? (f)",
        "group.resend_cap: ",
        "nope.a: unknown key (f)",
        "log.format: ",
        "\"junk\" is not key=value",
        "group.small_group: must be at least 1 (command line)",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!(problems.0.len(), 7, "{text}");
}

#[test]
fn missing_or_broken_file_is_a_problem() {
    let missing = Layers::new().file(std::path::Path::new("/nonexistent/linnet.toml")).load::<Root>();
    assert!(missing.expect_err("missing").to_string().contains("/nonexistent/linnet.toml: "));
    assert!(Layers::new().toml("f", "[group").load::<Root>().is_err());
}

#[test]
fn number_like_text_stays_text() {
    let loaded = Layers::new().overrides(["group.name=0123", "group.key=42", "group.peers=[\"a:1\"]"]).load::<Root>();
    let group = loaded.expect("valid").config.group;
    assert_eq!((group.name.as_str(), group.key.expose()), ("0123", "42"));
    assert_eq!(group.peers, ["a:1"]);
}

#[test]
fn secrets_are_never_shown() {
    let loaded = Layers::new().overrides(["group.key=hunter2"]).load::<Root>().expect("valid");
    let shown =
        format!("{}\n{:?}\n{}", loaded.print(), loaded.config, serde_json::to_string(&loaded.config).expect("json"));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(loaded.print().contains("key = \"(hidden)\""));
    assert_eq!(loaded.config.group.key.expose(), "hunter2");
}

#[test]
fn printed_configuration_loads_again() {
    let loaded = Layers::new().overrides(["group.small_group=7", "log.filter=debug"]).load::<Root>().expect("valid");
    let again = Layers::new().toml("printed", &loaded.print()).load::<Root>().expect("valid");
    assert_eq!(again.config.group.small_group, 7);
    assert_eq!(again.config.log.filter, "debug");
    assert!(loaded.print().starts_with("[group]\nsmall_group = 7"), "{}", loaded.print());
}

#[test]
fn diff_names_what_changes_and_what_restarts() {
    let load = |pairs: &[&str]| Layers::new().overrides(pairs).load::<Root>().expect("valid");
    let (old, new) = (load(&["group.key=hunter1"]), load(&["group.key=hunter2", "group.flush_window=5ms"]));
    let changed: Vec<_> = old.diff(&new).into_iter().map(|c| (c.key, c.old, c.new, c.change)).collect();
    let text = str::to_owned;
    let hidden = || "\"(hidden)\"".to_owned();
    let expected = [
        (text("group.flush_window"), text("\"20ms\""), text("\"5ms\""), Change::Live),
        (text("group.key"), hidden(), hidden(), Change::Restart),
    ];
    assert_eq!(changed, expected);
    assert!(old.diff(&old).is_empty());
}

#[test]
fn reference_lists_every_key_with_default_and_unit() {
    let page = markdown(&Root::docs());
    for part in [
        "## `[group]`",
        "| `small_group` | `200` members | restart | Members; above it, fan-out goes by subject. |",
        "| `flush_window` | `\"20ms\"` | live | Wait of a merged write. |",
        "| `name` | `\"x\"` | live | Name \\| shown. |",
        "## `[log]`",
    ] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
}

#[test]
fn units_are_required_and_understood() {
    for (text, nanos) in [("20ms", 20_000_000), ("1.5s", 1_500_000_000), ("7d", 604_800_000_000_000), ("0s", 0)] {
        assert_eq!(text.parse::<Period>().map(|period| period.as_nanos()), Ok(nanos), "{text}");
    }
    for bad in ["", "5", "ms", "1.s", "1..5s", "-1s", "5 parsecs", "99999999999999d", "1.0000000001s"] {
        assert!(bad.parse::<Period>().is_err(), "{bad}");
    }
    assert_eq!("8MiB".parse(), Ok(ByteSize(8 << 20)));
    assert!("8MB".parse::<ByteSize>().is_err(), "decimal units would be misread");
}

proptest! {
    #[test]
    fn periods_and_sizes_round_trip(n: u64) {
        let period = Period(Duration::from_nanos(n));
        prop_assert_eq!(period.to_string().parse(), Ok(period));
        prop_assert_eq!(ByteSize(n).to_string().parse(), Ok(ByteSize(n)));
    }

    #[test]
    fn unit_parser_never_panics(text in "\\PC{0,30}") {
        let _ = (text.parse::<Period>(), text.parse::<ByteSize>());
    }
}
