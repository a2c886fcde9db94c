//! Configuration: layers, checks that report everything at once, and the reference made from the same source.
//!
//! Layers, weakest first: built-in defaults, a TOML file, `LINNET_<SECTION>__<KEY>` environment variables, `key=value`
//! overrides of the command line. A struct declared with [`crate::config!`] carries name, default, unit, description and
//! "live or restart" of each key in one place; [`crate::sections!`] puts such structs together.

mod docs;
mod layers;
mod macros;
mod units;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use docs::{Change, KeyDoc, markdown};
pub use layers::{Changed, Layers, Loaded};
pub use units::{ByteSize, Period, Secret};

/// A configuration struct whose keys can be listed; implemented by [`crate::config!`] and [`crate::sections!`].
pub trait Documented: Serialize + DeserializeOwned + Default {
    /// Every key, in the order of declaration, without the prefix of enclosing sections.
    fn docs() -> Vec<KeyDoc>;

    /// Everything wrong with values that parse: bounds, and keys that contradict each other.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted (`group.flush_window`); empty when the file as a whole is wrong.
    pub key: String,
    /// Where the value came from: a file name, a variable, `command line`; empty when it is about several.
    pub from: String,
    /// What is wrong, for the operator.
    pub what: String,
}

impl Problem {
    /// A problem with the value of `key`; the layer is filled in by the loader.
    #[must_use]
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), from: String::new(), what: what.into() }
    }

    /// The same problem seen from the section that holds this one.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.key = if self.key.is_empty() { section.to_owned() } else { format!("{section}.{}", self.key) };
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.key.as_str(), self.from.as_str()) {
            ("", "") => f.write_str(&self.what),
            ("", from) => write!(f, "{from}: {}", self.what),
            (key, "") => write!(f, "{key}: {}", self.what),
            (key, from) => write!(f, "{key}: {} ({from})", self.what),
        }
    }
}

/// Everything wrong with a configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the configuration has {} problem(s)", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests;
