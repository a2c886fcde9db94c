//! Rules of the house that no compiler checks: who may depend on whom, which crates may be in the tree, which licences.
//! `deny.toml` says the same to `cargo deny`, which not every machine has.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Shared crates and what of ours each may use; everything else is a service, a composition root or a test.
const SHARED: [(&str, &[&str]); 12] = [
    ("linnet-types", &[]),
    ("linnet-usersig", &["linnet-types"]),
    ("linnet-runtime", &["linnet-types"]),
    ("linnet-proto", &["linnet-types"]),
    ("linnet-store", &["linnet-types", "linnet-runtime", "linnet-proto"]),
    ("linnet-bus", &["linnet-types", "linnet-runtime", "linnet-proto"]),
    ("linnet-cluster", &["linnet-types", "linnet-runtime", "linnet-proto", "linnet-bus"]),
    ("linnet-client", &["linnet-types", "linnet-runtime", "linnet-proto"]),
    ("linnet-admission", &LOWER),
    ("linnet-delivery", &LOWER),
    ("linnet-work", &LOWER),
    ("linnet-outbound", &[]),
];
const LOWER: [&str; 6] =
    ["linnet-types", "linnet-runtime", "linnet-proto", "linnet-store", "linnet-bus", "linnet-cluster"];

/// The roots that may name several services.
const ROOTS: [&str; 6] =
    ["linnet", "linnet-daemons", "linnet-local", "linnet-testkit", "linnet-tests", "linnet-loadtest"];

/// One TLS stack: rustls on ring.
const BANNED: [&str; 5] = ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

/// Types of these cross crate borders, so a second copy would split them.
const SINGLE: [&str; 9] =
    ["tonic", "prost", "hyper", "http", "tower", "rustls", "opentelemetry", "prometheus-client", "tokio"];

const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "MPL-2.0",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
    "0BSD",
    "CC0-1.0",
];

struct Tree {
    packages: Vec<Value>,
    members: BTreeSet<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// What is built on this machine, from the lock file alone.
fn tree() -> Tree {
    let host = Command::new("rustc").arg("-vV").output().expect("rustc runs").stdout;
    let host = String::from_utf8(host).expect("text");
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let arguments = ["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host];
    let output = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let used: BTreeSet<_> = list(&json["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
    let ours: BTreeSet<_> = list(&json["workspace_members"]).iter().map(text).collect();
    let packages = list(&json["packages"]).iter().filter(|package| used.contains(text(&package["id"])));
    let members = packages.clone().filter(|package| ours.contains(text(&package["id"])));
    Tree {
        members: members.map(|package| text(&package["name"]).to_owned()).collect(),
        packages: packages.cloned().collect(),
    }
}

impl Tree {
    /// Our crates and what of ours each uses outside its tests.
    fn ours(&self) -> BTreeMap<&str, Vec<&str>> {
        let ours = self.packages.iter().filter(|package| self.members.contains(text(&package["name"])));
        ours.map(|package| (text(&package["name"]), self.used_by(package))).collect()
    }

    fn used_by<'a>(&'a self, package: &'a Value) -> Vec<&'a str> {
        let dependencies = list(&package["dependencies"]).iter().filter(|used| used["kind"] != "dev");
        dependencies.map(|used| text(&used["name"])).filter(|name| self.members.contains(*name)).collect()
    }
}

#[test]
fn dependencies_point_downwards() {
    let tree = tree();
    let shared: BTreeMap<_, _> = SHARED.into_iter().collect();
    assert!(shared.keys().all(|name| tree.members.contains(*name)), "{:?}", tree.members);
    for (name, used) in tree.ours().into_iter().filter(|(name, _)| !ROOTS.contains(name)) {
        for dependency in used {
            match shared.get(name) {
                Some(allowed) => assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}"),
                None => assert!(
                    shared.contains_key(dependency),
                    "the service {name} must not depend on {dependency}: services call each other through proto"
                ),
            }
        }
    }
}

#[test]
fn no_banned_crates_and_no_second_copies() {
    let tree = tree();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &tree.packages {
        versions.entry(text(&package["name"])).or_default().insert(text(&package["version"]));
        let source = package["source"].as_str().unwrap_or("registry");
        assert!(source.starts_with("registry"), "{} comes from {source}", package["name"]);
    }
    for name in BANNED {
        assert!(!versions.contains_key(name), "{name} is in the tree");
    }
    for (name, found) in versions.iter().filter(|(name, _)| SINGLE.contains(name)) {
        assert_eq!(found.len(), 1, "{name}: {found:?}");
    }
}

/// Whether a licence expression can be met; enough for the forms in use (`OR` within `AND`, brackets around the former).
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let terms = expression.split(" AND ").map(|term| term.trim_matches(|c| matches!(c, '(' | ')' | ' ')));
    terms.into_iter().all(|term| term.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn every_licence_is_allowed() {
    for package in &tree().packages {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(allowed(licence), "{} {}: {licence}", package["name"], package["version"]);
    }
    assert!(!allowed("GPL-3.0") && !allowed("MIT AND GPL-3.0") && allowed("(GPL-2.0 OR MIT) AND ISC"));
}

#[test]
fn deny_toml_says_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deny.toml");
    let deny: toml::Table = std::fs::read_to_string(path).expect("deny.toml").parse().expect("TOML");
    let licences = deny["licenses"]["allow"].as_array().expect("a list").iter();
    assert_eq!(licences.filter_map(|licence| licence.as_str()).collect::<Vec<_>>(), LICENCES);
    let entries = deny["bans"]["deny"].as_array().expect("a list");
    let named = |single: bool| {
        let entries = entries.iter().filter(move |entry| entry.get("deny-multiple-versions").is_some() == single);
        entries.filter_map(|entry| entry["crate"].as_str()).collect::<Vec<_>>()
    };
    assert_eq!((named(false), named(true)), (BANNED.to_vec(), SINGLE.to_vec()));
}
