//! Keys whose byte order is the order of their parts: partitions and clustering keys of every aggregate are built here.
//!
//! Numbers are big-endian. Text and byte parts end in `00 01`, with `00` inside written `00 FF`, so a shorter part sorts
//! before any longer one it begins, no part runs into the next, and no id can forge a neighbour's key.
//!
//! ```
//! use linnet_store::keys::{Key, Parts};
//! let key = Key::new().u32(1_400_000_000).text("alice").u64(7).done();
//! let mut parts = Parts::new("friends", &key);
//! assert_eq!((parts.u32().unwrap(), parts.text().unwrap().as_str(), parts.u64().unwrap()), (1_400_000_000, "alice", 7));
//! parts.end().unwrap();
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::rows::{Error, Range, Result};

const END: [u8; 2] = [0, 1];
const ESCAPED_ZERO: [u8; 2] = [0, 0xff];

/// Builds a key part by part.
#[derive(Clone, Debug, Default)]
pub struct Key(BytesMut);

impl Key {
    /// An empty key, smaller than any other.
    #[must_use]
    pub fn new() -> Self {
        Self(BytesMut::with_capacity(40))
    }

    /// Appends one byte: a tag that tells kinds of rows of one partition apart.
    #[must_use]
    pub fn u8(mut self, n: u8) -> Self {
        self.0.put_u8(n);
        self
    }

    /// Appends a number, ascending.
    #[must_use]
    pub fn u32(mut self, n: u32) -> Self {
        self.0.put_u32(n);
        self
    }

    /// Appends a number, ascending.
    #[must_use]
    pub fn u64(mut self, n: u64) -> Self {
        self.0.put_u64(n);
        self
    }

    /// Appends a number so that larger ones sort first.
    #[must_use]
    pub fn u64_desc(self, n: u64) -> Self {
        self.u64(!n)
    }

    /// Appends text, byte order.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Appends bytes of any length and content.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            match byte {
                0 => self.0.put_slice(&ESCAPED_ZERO),
                _ => self.0.put_u8(byte),
            }
        }
        self.0.put_slice(&END);
        self
    }

    /// Appends the beginning of a text part, without its end: with [`prefix`], a search by prefix. Must be the last part.
    #[must_use]
    pub fn text_prefix(mut self, text: &str) -> Self {
        self.0.put_slice(text.as_bytes());
        self
    }

    /// The finished key.
    #[must_use]
    pub fn done(self) -> Bytes {
        self.0.freeze()
    }
}

/// The range of all keys that begin with `key`, ascending and unlimited.
#[must_use]
pub fn prefix(key: impl Into<Bytes>) -> Range {
    let from: Bytes = key.into();
    Range { to: after_prefix(&from), from: Some(from), descending: false, limit: 0 }
}

/// The smallest key above every key that begins with `key`; `None` when there is none.
#[must_use]
pub fn after_prefix(key: &[u8]) -> Option<Bytes> {
    let last = key.iter().rposition(|&byte| byte != 0xff)?;
    let mut next = key[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

/// The smallest key above `key` itself: the exclusive start of the next page.
#[must_use]
pub fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Takes a key apart again, in the order it was built.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    table: &'static str,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Reads `key` of `table` (named in errors).
    #[must_use]
    pub fn new(table: &'static str, key: &'a [u8]) -> Self {
        Self { table, rest: key }
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt { table: self.table, why: format!("key: {why}") }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.corrupt("too short"));
        };
        self.rest = rest;
        Ok(*head)
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// [`Error::Corrupt`], as every method here, when the key has another shape.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take::<1>()?[0])
    }

    /// Reads a number.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Reads a number.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// Reads a number written by [`Key::u64_desc`].
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn u64_desc(&mut self) -> Result<u64> {
        self.u64().map(|n| !n)
    }

    /// Reads a text part.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| self.corrupt("text is not UTF-8"))
    }

    /// Reads a byte part.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            match self.rest {
                [0, 1, rest @ ..] => {
                    self.rest = rest;
                    return Ok(out);
                }
                [0, 0xff, rest @ ..] => {
                    out.push(0);
                    self.rest = rest;
                }
                [0, ..] | [] => return Err(self.corrupt("a part does not end")),
                [byte, rest @ ..] => {
                    out.push(*byte);
                    self.rest = rest;
                }
            }
        }
    }

    /// Whether every part was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("too long")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn byte_order_is_the_order_of_the_parts(a: (u32, String, u64), b: (u32, String, u64)) {
            let key = |(app, text, n): &(u32, String, u64)| Key::new().u32(*app).text(text).u64(*n).done();
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn parts_come_back(app: u32, bytes: Vec<u8>, text: String, n: u64) {
            let key = Key::new().u32(app).bytes(&bytes).u64_desc(n).text(&text).done();
            let mut parts = Parts::new("t", &key);
            prop_assert_eq!(parts.u32().unwrap(), app);
            prop_assert_eq!(parts.bytes().unwrap(), bytes);
            prop_assert_eq!(parts.u64_desc().unwrap(), n);
            prop_assert_eq!(parts.text().unwrap(), text);
            prop_assert!(parts.end().is_ok());
        }

        #[test]
        fn any_bytes_are_refused_or_read(junk: Vec<u8>) {
            let mut parts = Parts::new("t", &junk);
            let _ = parts.u32().and_then(|_| parts.text()).and_then(|_| parts.u64());
        }

        #[test]
        fn a_prefix_range_holds_exactly_what_begins_with_it(prefix_bytes: Vec<u8>, key: Vec<u8>) {
            let range = prefix(prefix_bytes.clone());
            let inside = range.from.is_none_or(|from| key >= from) && range.to.is_none_or(|to| key < to);
            prop_assert_eq!(inside, key.starts_with(&prefix_bytes));
        }
    }

    #[test]
    fn larger_numbers_sort_first_when_descending() {
        assert!(Key::new().u64_desc(8).done() < Key::new().u64_desc(7).done());
    }

    #[test]
    fn the_next_page_starts_right_after_a_key() {
        let key = Key::new().text("a").done();
        assert!(after(&key) > key);
        assert!(after(&key) < Key::new().text("a\0").done().iter().copied().chain([0]).collect::<Vec<_>>());
    }
}
