//! Reading a request body: an object whose values stay text until somebody asks for one with the code its absence or a
//! wrong type has.
//!
//! `body.at("To_Account").string(code::TO_ACCOUNT)?.need(code::TO_ACCOUNT)?` reads as the documents do: not a string,
//! then missing. `null` counts as missing (client libraries send nulls), unknown fields are never looked at, and a
//! renamed field is `any(&["MuteTime", "ShutUpTime"])`.

use std::borrow::Cow;
use std::fmt;

use linnet_types::{GroupId, Refusal, UserId, code};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object over borrowed text. Of a repeated key the last one counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Parses `json`; `None` when it is not an object.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The field `name`.
    pub(crate) fn at(&self, name: &'static str) -> Field<'a> {
        Field { name, raw: self.find(|key| key == name) }
    }

    /// The first of `names` that is there; the first is the name in messages.
    pub(crate) fn any(&self, names: &'static [&'static str]) -> Field<'a> {
        let raw = names.iter().find_map(|name| self.find(|key| key == *name));
        Field { name: names.first().copied().unwrap_or_default(), raw }
    }

    /// The field `name` in any letter case.
    pub(crate) fn any_case(&self, name: &'static str) -> Field<'a> {
        Field { name, raw: self.find(|key| key.eq_ignore_ascii_case(name)) }
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<&'a RawValue> {
        let (_, raw) = self.fields.iter().rev().find(|(key, raw)| wanted(key) && raw.get() != "null")?;
        Some(raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(Object { fields })
            }
        }
        from.deserialize_map(Fields)
    }
}

/// A key that is borrowed unless it has escapes; serde's own `Cow` always copies.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Text)
    }
}

/// One field of a body or one element of a list, not yet looked into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    name: &'static str,
    raw: Option<&'a RawValue>,
}

/// What was found in a field of the right type.
#[derive(Clone, Debug)]
#[must_use = "a field that is read is either needed or optional"]
pub(crate) struct Found<T> {
    name: &'static str,
    /// `None` when the field is missing or null.
    pub(crate) value: Option<T>,
}

impl<T> Found<T> {
    /// The value; `missing` when there is none.
    pub(crate) fn need(self, missing: u32) -> Result<T, Refusal> {
        self.value.ok_or_else(|| Refusal::new(missing, format!("{} is missing", self.name)))
    }

    /// The value or `otherwise`.
    pub(crate) fn or(self, otherwise: T) -> T {
        self.value.unwrap_or(otherwise)
    }
}

impl<T: Default> Found<T> {
    /// The value or the empty one.
    pub(crate) fn or_default(self) -> T {
        self.value.unwrap_or_default()
    }
}

impl<T> Found<Vec<T>> {
    /// The list; `missing` when there is none or it is empty, `over` when it has more than `most` elements.
    pub(crate) fn need_within(self, most: usize, missing: u32, over: u32) -> Result<Vec<T>, Refusal> {
        let name = self.name;
        let list = self.within(most, over)?.need(missing)?;
        if list.is_empty() {
            return Err(Refusal::new(missing, format!("{name} is empty")));
        }
        Ok(list)
    }

    /// The same unless it has more than `most` elements.
    pub(crate) fn within(self, most: usize, over: u32) -> Result<Self, Refusal> {
        match &self.value {
            Some(list) if list.len() > most => {
                Err(Refusal::new(over, format!("{} has more than {most} elements", self.name)))
            }
            _ => Ok(self),
        }
    }
}

impl<'a> Field<'a> {
    /// Whether it is there and not null.
    pub(crate) fn is_there(self) -> bool {
        self.raw.is_some()
    }

    /// Its JSON text as received.
    pub(crate) fn raw(self) -> Found<&'a RawValue> {
        Found { name: self.name, value: self.raw }
    }

    fn read<T: Deserialize<'a>>(self, wrong: u32, what: &str) -> Result<Found<T>, Refusal> {
        let value = self.raw.map(|raw| serde_json::from_str(raw.get())).transpose();
        let value = value.map_err(|_| Refusal::new(wrong, format!("{} must be {what}", self.name)))?;
        Ok(Found { name: self.name, value })
    }

    /// A string.
    pub(crate) fn string(self, wrong: u32) -> Result<Found<String>, Refusal> {
        self.read(wrong, "a string")
    }

    /// A string of at most `most` bytes.
    pub(crate) fn string_within(self, most: usize, wrong: u32, over: u32) -> Result<Found<String>, Refusal> {
        let found = self.string(wrong)?;
        if found.value.as_ref().is_some_and(|text| text.len() > most) {
            return Err(Refusal::new(over, format!("{} is over {most} bytes", self.name)));
        }
        Ok(found)
    }

    /// An account id: `wrong` when not a string, `impossible` when it cannot be an id.
    pub(crate) fn user(self, wrong: u32, impossible: u32) -> Result<Found<String>, Refusal> {
        let found = self.string(wrong)?;
        if let Some(id) = &found.value {
            let why = |refusal: Refusal| Refusal::new(impossible, format!("{}: {}", self.name, refusal.info));
            UserId::parse(id).map_err(why)?;
        }
        Ok(found)
    }

    /// A group id that is needed: 10004 when missing or not a string, 10015 when it cannot be one.
    pub(crate) fn group(self) -> Result<String, Refusal> {
        let id = self.string(code::GROUP_BAD_PARAM)?.need(code::GROUP_BAD_PARAM)?;
        GroupId::parse(&id)?;
        Ok(id)
    }

    /// A whole number of the type's range.
    pub(crate) fn number<T: TryFrom<u64>>(self, wrong: u32) -> Result<Found<T>, Refusal> {
        let found: Found<u64> = self.read(wrong, "a whole number")?;
        let narrow = |n| T::try_from(n).map_err(|_| Refusal::new(wrong, format!("{} is out of range", self.name)));
        Ok(Found { name: found.name, value: found.value.map(narrow).transpose()? })
    }

    /// A whole number, also as a string of decimal digits: fields whose documents and libraries disagree.
    pub(crate) fn number_or_text<T: TryFrom<u64>>(self, wrong: u32) -> Result<Found<T>, Refusal> {
        let Ok(Found { value: Some(text), name }) = self.string(wrong) else { return self.number(wrong) };
        let bad = || Refusal::new(wrong, format!("{name} must be a whole number"));
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(bad)?;
        Ok(Found { name, value: Some(T::try_from(number).map_err(|_| bad())?) })
    }

    /// A switch: 0 or another number; `true` and `false` are taken too. Missing is off.
    pub(crate) fn switch(self, wrong: u32) -> Result<bool, Refusal> {
        if let Ok(Found { value: Some(on), .. }) = self.read::<bool>(wrong, "0 or 1") {
            return Ok(on);
        }
        Ok(self.number::<u64>(wrong)?.or(0) != 0)
    }

    /// The elements of an array.
    pub(crate) fn list(self, wrong: u32) -> Result<Found<Vec<Field<'a>>>, Refusal> {
        let found: Found<Vec<&'a RawValue>> = self.read(wrong, "an array")?;
        let element = |raw| Field { name: self.name, raw: Some(raw) };
        Ok(Found { name: self.name, value: found.value.map(|list| list.into_iter().map(element).collect()) })
    }

    /// An array of strings: `wrong` when not an array, `element` when one of it is not a string.
    pub(crate) fn strings(self, wrong: u32, element: u32) -> Result<Found<Vec<String>>, Refusal> {
        let list = self.list(wrong)?.value;
        let value = list.map(|list| list.into_iter().map(|one| one.string(element)?.need(element)).collect());
        Ok(Found { name: self.name, value: value.transpose()? })
    }

    /// An object.
    pub(crate) fn object(self, wrong: u32) -> Result<Found<Object<'a>>, Refusal> {
        self.read(wrong, "an object")
    }

    /// An array of objects.
    pub(crate) fn objects(self, wrong: u32) -> Result<Found<Vec<Object<'a>>>, Refusal> {
        let list = self.list(wrong)?.value;
        let value = list.map(|list| list.into_iter().map(|one| one.object(wrong)?.need(wrong)).collect());
        Ok(Found { name: self.name, value: value.transpose()? })
    }
}

#[cfg(test)]
mod tests;
