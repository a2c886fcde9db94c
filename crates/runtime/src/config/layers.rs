//! Loading: each layer's keys are checked one by one, so every mistake is reported at once and by name.

use std::fmt::Write as _;
use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};

use super::{Change, Documented, KeyDoc, Problem, Problems};

const ENV_PREFIX: &str = "LINNET_";
const DEFAULTS: &str = "default";
const COMMAND_LINE: &str = "command line";

/// Values over the defaults, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    settings: Vec<Setting>,
    problems: Vec<Problem>,
}

/// One value of one layer.
#[derive(Clone, Debug)]
struct Setting {
    key: String,
    from: String,
    value: Value,
    /// The text as given, for layers without types: `123` may be meant as text.
    raw: Option<String>,
}

/// A valid configuration and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// The values.
    pub config: C,
    figment: Figment,
    sources: Vec<(String, String)>,
}

/// One difference between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The key.
    pub key: String,
    /// Its value before; secrets are hidden.
    pub old: String,
    /// Its value after.
    pub new: String,
    /// Whether it takes a restart.
    pub change: Change,
}

impl Layers {
    /// Defaults only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file. One that cannot be read or parsed is a problem reported by [`Layers::load`].
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self = self.toml(&name, &text),
            Err(error) => self.problems.push(Problem { key: String::new(), from: name, what: error.to_string() }),
        }
        self
    }

    /// Adds TOML text under a name.
    #[must_use]
    pub fn toml(mut self, name: &str, text: &str) -> Self {
        match Figment::from(Toml::string(text)).extract::<Dict>() {
            Ok(dict) => flatten("", &dict, &mut |key, value| {
                self.settings.push(Setting { key, from: name.to_owned(), value: value.clone(), raw: None });
            }),
            Err(error) => {
                let what = error.to_string();
                self.problems.push(Problem { key: String::new(), from: name.to_owned(), what });
            }
        }
        self
    }

    /// Adds `LINNET_<SECTION>__<KEY>` variables; others are left alone. Takes `std::env::vars()` in a binary.
    #[must_use]
    pub fn env(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = vars.into_iter().filter_map(|(name, raw)| {
            let key = name.strip_prefix(ENV_PREFIX)?.to_lowercase();
            key.contains("__").then(|| (key.replace("__", "."), name, raw))
        });
        let mut settings: Vec<_> = ours.map(|(key, name, raw)| Setting::untyped(key, name, raw)).collect();
        settings.sort_by(|a, b| a.key.cmp(&b.key));
        self.settings.extend(settings);
        self
    }

    /// Adds `section.key=value` words of the command line.
    #[must_use]
    pub fn overrides<S: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = S>) -> Self {
        for pair in pairs {
            match pair.as_ref().split_once('=') {
                Some((key, raw)) => {
                    let from = COMMAND_LINE.to_owned();
                    self.settings.push(Setting::untyped(key.trim().to_owned(), from, raw.to_owned()));
                }
                None => {
                    let what = format!("{:?} is not key=value", pair.as_ref());
                    self.problems.push(Problem { key: String::new(), from: COMMAND_LINE.to_owned(), what });
                }
            }
        }
        self
    }

    /// Merges and checks.
    ///
    /// # Errors
    /// Every unknown key, every value of a wrong type, and everything [`Documented::problems`] finds.
    pub fn load<C: Documented>(self) -> Result<Loaded<C>, Problems> {
        let docs = C::docs();
        let mut problems = self.problems;
        let mut figment = Figment::from(Serialized::defaults(C::default()));
        let mut sources = Vec::new();
        for setting in self.settings {
            if !docs.iter().any(|doc| doc.covers(&setting.key)) {
                let what = unknown(&setting.key, &docs);
                problems.push(Problem { key: setting.key, from: setting.from, what });
                continue;
            }
            match setting.fitting::<C>() {
                Ok(value) => {
                    figment = figment.merge(Serialized::default(&setting.key, value));
                    sources.push((setting.key, setting.from));
                }
                Err(what) => problems.push(Problem { key: setting.key, from: setting.from, what }),
            }
        }
        let config = match figment.extract::<C>() {
            Ok(config) => config,
            Err(error) => {
                problems.push(Problem::new("", error.to_string()));
                return Err(Problems(problems));
            }
        };
        problems.extend(config.problems().into_iter().map(|mut problem| {
            problem.from = source(&sources, &problem.key).to_owned();
            problem
        }));
        if problems.is_empty() { Ok(Loaded { config, figment, sources }) } else { Err(Problems(problems)) }
    }
}

impl Setting {
    fn untyped(key: String, from: String, raw: String) -> Self {
        let value = raw.parse().unwrap_or_else(|_| Value::from(raw.as_str()));
        Self { key, from, value, raw: Some(raw) }
    }

    /// The value in the form its key takes: tried alone over the defaults, so that an error is about this key.
    fn fitting<C: Documented>(&self) -> Result<Value, String> {
        let alone = |value: &Value| {
            let figment = Figment::from(Serialized::defaults(C::default()));
            figment.merge(Serialized::default(&self.key, value)).extract::<C>().map(drop)
        };
        let Err(error) = alone(&self.value) else { return Ok(self.value.clone()) };
        if let Some(raw) = &self.raw {
            let text = Value::from(raw.as_str());
            if alone(&text).is_ok() {
                return Ok(text);
            }
        }
        let kinds = error.into_iter().map(|error| error.kind.to_string());
        Err(kinds.collect::<Vec<_>>().join("; "))
    }
}

fn source<'a>(sources: &'a [(String, String)], key: &str) -> &'a str {
    sources.iter().rev().find(|(known, _)| known == key).map_or(DEFAULTS, |(_, from)| from)
}

/// Calls `each` for every leaf; arrays are leaves, and so is an empty table.
fn flatten(prefix: &str, dict: &Dict, each: &mut impl FnMut(String, &Value)) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value.as_dict() {
            Some(inner) => flatten(&key, inner, each),
            None => each(key, value),
        }
    }
}

fn unknown(key: &str, docs: &[KeyDoc]) -> String {
    let close = docs.iter().map(|doc| (distance(&doc.key, key), &doc.key)).min();
    match close {
        Some((distance, near)) if distance <= 1 + key.len() / 4 => format!("unknown key; did you mean {near}?"),
        _ => "unknown key".to_owned(),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl<C: Documented> Loaded<C> {
    /// The layer the value of `key` came from.
    #[must_use]
    pub fn source(&self, key: &str) -> &str {
        source(&self.sources, key)
    }

    /// Every value as TOML, with the layer it came from; secrets are hidden.
    #[must_use]
    pub fn print(&self) -> String {
        let (mut out, mut section) = (String::new(), String::new());
        for doc in C::docs() {
            let (table, name) = doc.key.rsplit_once('.').unwrap_or(("", &doc.key));
            if table != section {
                section = table.to_owned();
                let _ = writeln!(out, "{}[{table}]", if out.is_empty() { "" } else { "\n" });
            }
            let value = self.figment.find_value(&doc.key).map_or_else(|_| "?".to_owned(), |value| shown(&doc, &value));
            let _ = writeln!(out, "{:<48} # {}", format!("{name} = {value}"), self.source(&doc.key));
        }
        out
    }
}

impl<C: Documented> Loaded<C> {
    /// The keys whose value would change if `next` took this configuration's place.
    #[must_use]
    pub fn diff(&self, next: &Self) -> Vec<Changed> {
        let value = |loaded: &Self, doc: &KeyDoc| loaded.figment.find_value(&doc.key).ok();
        let mut changed = Vec::new();
        for doc in C::docs() {
            let (old, new) = (value(self, &doc), value(next, &doc));
            if old != new {
                let text = |value: &Option<Value>| value.as_ref().map_or_else(String::new, |value| shown(&doc, value));
                changed.push(Changed { old: text(&old), new: text(&new), key: doc.key.clone(), change: doc.change });
            }
        }
        changed
    }
}

fn shown(doc: &KeyDoc, value: &Value) -> String {
    let set = value.as_str().is_none_or(|text| !text.is_empty());
    if doc.secret && set {
        return "\"(hidden)\"".to_owned();
    }
    serde_json::to_string(value).unwrap_or_else(|_| "?".to_owned())
}
