//! Values with units, and values that are not shown.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written `20ms`, `1.5s`, `30m`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// A number of bytes, written `512B`, `64KiB`, `8MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Nanoseconds per unit, largest first.
const PERIODS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
/// Bytes per unit, largest first.
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Period {
    /// `n` milliseconds.
    #[must_use]
    pub const fn ms(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    /// `n` seconds.
    #[must_use]
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// The span.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl ByteSize {
    /// `n` KiB.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// `n` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// The number of bytes, for sizes of things in memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// `1.5` and a unit from `units` as a count of the smallest; exact for up to nine decimals.
fn parse(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a number with a unit, like {example}");
    let text = text.trim();
    let split = text.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let (_, scale) = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > 9 || fraction.is_empty() || fraction.contains('.') {
        return Err(wrong());
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let part: u128 = fraction.parse().map_err(|_| wrong())?;
    let part_scale = 10_u128.pow(u32::try_from(fraction.len()).expect("at most 9"));
    let total = whole.checked_mul(u128::from(*scale)).map(|all| all + part * u128::from(*scale) / part_scale);
    total.and_then(|total| u64::try_from(total).ok()).ok_or_else(|| format!("{text:?} is too large"))
}

/// The largest unit that divides `count`.
fn show(f: &mut fmt::Formatter<'_>, count: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (_, small) = units[units.len() - 1];
    let (name, scale) = units
        .iter()
        .find(|(_, scale)| count >= *scale && count.is_multiple_of(*scale))
        .copied()
        .unwrap_or((if units.len() == PERIODS.len() { "s" } else { "B" }, small));
    write!(f, "{}{name}", count / scale)
}

macro_rules! text_value {
    ($name:ident, $units:expr, $example:literal, $count:expr, $make:expr) => {
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                parse(text, &$units, $example).map($make)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show(f, $count(self), &$units)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_value!(
    Period,
    PERIODS,
    "20ms",
    |period: &Period| u64::try_from(period.0.as_nanos()).unwrap_or(u64::MAX),
    |nanos| Period(Duration::from_nanos(nanos))
);
text_value!(ByteSize, SIZES, "8MiB", |size: &ByteSize| size.0, ByteSize);

impl Deref for Period {
    type Target = Duration;
    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

/// Text that `Debug`, logs and printed configurations never show.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }
    /// The text, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(none)" } else { "Secret(set)" })
    }
}

/// Writes a placeholder: only an empty secret survives a round trip.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if self.is_empty() { "" } else { "(hidden)" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}
