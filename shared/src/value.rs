//! One value as SQLite stores it: exactly, type and bits. Pure.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use sha2::{Digest as _, Sha256};

use crate::synced::Collation;

/// Largest integer that every JSON reader keeps (RFC 8259, section 6).
const JSON_SAFE: u64 = (1 << 53) - 1;

/// A value of any of SQLite's five storage classes. Equal means the same class and the same bits: 1 is not 1.0.
///
/// JSON: `null`; a number for an integer that every JSON reader keeps, else `{"i":"-9223372036854775808"}`;
/// `{"r":"3fb999999999999a"}`, the bits of a REAL, since readers differ in the last one; text as itself, or
/// `{"t":"ff00"}` where it is no UTF-8 (SQLite does not check); `{"b":"00ff"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL, as the bits of an IEEE 754 double.
    Real(u64),
    /// TEXT, as its bytes.
    Text(Vec<u8>),
    /// BLOB.
    Blob(Vec<u8>),
}

/// The first 64 bits of the SHA-256 of a value with its class: what an acknowledgement is compared by. It tells accidents
/// apart, not forgeries: whoever may forge a row may as well send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueHash(pub u64);

impl Value {
    /// Text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    /// A REAL.
    pub fn real(real: f64) -> Self {
        Self::Real(real.to_bits())
    }

    /// Bytes that it takes in a page, about; what limits are counted in.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 9,
            Self::Text(bytes) | Self::Blob(bytes) => 4 + bytes.len(),
        }
    }

    /// Its hash.
    pub fn hash(&self) -> ValueHash {
        let mut hasher = Sha256::new();
        self.feed(&mut hasher);
        let digest: [u8; 32] = hasher.finalize().into();
        ValueHash(u64::from_be_bytes(digest[..8].try_into().expect("eight of 32 bytes")))
    }

    /// Feeds class, length and bytes to a hash: no two lists of values feed the same.
    pub(crate) fn feed(&self, hasher: &mut Sha256) {
        let mut whole = |class: u8, bytes: &[u8]| {
            hasher.update([class]);
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::Null => whole(0, &[]),
            Self::Integer(i) => whole(1, &i.to_be_bytes()),
            Self::Real(bits) => whole(2, &bits.to_be_bytes()),
            Self::Text(text) => whole(3, text),
            Self::Blob(blob) => whole(4, blob),
        }
    }

    /// The one form of all values that are one key with that collation: what [`Self::index_bytes`] finds equal.
    #[must_use]
    pub fn canonical(&self, collation: Collation) -> Self {
        match self {
            Self::Real(bits) => match f64::from_bits(*bits) {
                real if real.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&real) => {
                    Self::Integer(real as i64)
                }
                _ => self.clone(),
            },
            Self::Text(text) => Self::Text(match collation {
                Collation::Binary => text.clone(),
                Collation::Nocase => text.to_ascii_lowercase(),
                Collation::Rtrim => text[..text.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1)].to_vec(),
            }),
            Self::Null | Self::Integer(_) | Self::Blob(_) => self.clone(),
        }
    }

    /// Bytes that are equal exactly where SQLite finds two values equal in an index with that collation, and that say
    /// themselves where they end. NULL is equal to NULL here.
    pub fn index_bytes(&self, collation: Collation, into: &mut Vec<u8>) {
        let mut whole = |class: u8, bytes: &[u8]| {
            into.push(class);
            into.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            into.extend_from_slice(bytes);
        };
        match self {
            Self::Null => whole(0, &[]),
            Self::Integer(i) => whole(1, &i.to_be_bytes()),
            // 7 and 7.0 are one key. 2^63 as a REAL is beyond every INTEGER.
            Self::Real(bits) => match f64::from_bits(*bits) {
                real if real.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&real) => {
                    whole(1, &(real as i64).to_be_bytes());
                }
                real => whole(2, &real.to_bits().to_be_bytes()),
            },
            Self::Text(text) => match collation {
                Collation::Binary => whole(3, text),
                Collation::Nocase => whole(3, &text.to_ascii_lowercase()),
                Collation::Rtrim => {
                    let end = text.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
                    whole(3, &text[..end]);
                }
            },
            Self::Blob(blob) => whole(4, blob),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(i) => write!(f, "{i}"),
            Self::Real(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Self::Text(text) => write!(f, "{:?}", String::from_utf8_lossy(text)),
            Self::Blob(blob) => write!(f, "x'{}'", hex(blob)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).filter(|_| !b.is_ascii_uppercase());
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let tagged = |s: S, tag: &str, text: &str| {
            let mut map = s.serialize_map(Some(1))?;
            map.serialize_entry(tag, text)?;
            map.end()
        };
        match self {
            Self::Null => s.serialize_unit(),
            Self::Integer(i) if i.unsigned_abs() <= JSON_SAFE => s.serialize_i64(*i),
            Self::Integer(i) => tagged(s, "i", &i.to_string()),
            Self::Real(bits) => tagged(s, "r", &format!("{bits:016x}")),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => s.serialize_str(text),
                Err(_) => tagged(s, "t", &hex(text)),
            },
            Self::Blob(blob) => tagged(s, "b", &hex(blob)),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> de::Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, an integer, a text, or one of {\"i\"|\"r\"|\"t\"|\"b\": …}")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_i64<E: de::Error>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Integer(i))
    }
    fn visit_u64<E: de::Error>(self, u: u64) -> Result<Value, E> {
        i64::try_from(u).map(Value::Integer).map_err(|_| E::custom(format!("{u} is beyond the integers of SQLite")))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let bad = |tag: &str| de::Error::custom(format!("the value behind {tag:?} is not what that kind is written as"));
        let Some((tag, text)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::custom("an empty object is no value"));
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("a value has one key: i, r, t or b"));
        }
        let value = match tag.as_str() {
            "i" => text.parse().ok().map(Value::Integer),
            "r" if text.len() == 16 => unhex(&text).map(|b| Value::Real(u64::from_be_bytes(b.try_into().expect("16 digits are 8 bytes")))),
            "t" => unhex(&text).map(Value::Text),
            "b" => unhex(&text).map(Value::Blob),
            _ => None,
        };
        value.ok_or_else(|| bad(&tag))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-3i64..300).prop_map(Value::Integer),
            any::<u64>().prop_map(Value::Real),
            (-4i32..4).prop_map(|i| Value::real(f64::from(i) / 2.0)),
            "[a-zA-Z ]{0,6}".prop_map(|t| Value::text(&t)),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Blob),
        ]
    }

    #[test]
    fn json_keeps_what_its_readers_would_change() {
        let check = |value: Value, json: &str| {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<Value>(json).unwrap(), value);
        };
        check(Value::Null, "null");
        check(Value::Integer(-7), "-7");
        check(Value::Integer(9_007_199_254_740_991), "9007199254740991");
        check(Value::Integer(i64::MIN), r#"{"i":"-9223372036854775808"}"#);
        check(Value::real(0.1 + 0.2), r#"{"r":"3fd3333333333334"}"#);
        check(Value::Real(f64::NEG_INFINITY.to_bits()), r#"{"r":"fff0000000000000"}"#);
        check(Value::text("ü\0"), r#""ü\u0000""#);
        check(Value::Text(vec![0xff, 0]), r#"{"t":"ff00"}"#);
        check(Value::Blob(vec![0, 255]), r#"{"b":"00ff"}"#);
        for bad in ["{}", "1.5", "true", "[]", r#"{"r":"0.1"}"#, r#"{"b":"0"}"#, r#"{"b":"FF"}"#, r#"{"x":"00"}"#, r#"{"b":"","t":""}"#] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Value>("9223372036854775808").is_err());
    }

    #[test]
    fn an_index_finds_equal_what_sqlite_does() {
        let check = |a: Value, b: Value, collation, equal| {
            let bytes = |value: &Value| {
                let mut into = Vec::new();
                value.index_bytes(collation, &mut into);
                into
            };
            assert_eq!(bytes(&a) == bytes(&b), equal, "{a:?} {b:?} {collation:?}");
        };
        check(Value::Integer(7), Value::real(7.0), Collation::Binary, true);
        check(Value::Integer(0), Value::real(-0.0), Collation::Binary, true);
        check(Value::Integer(7), Value::real(7.5), Collation::Binary, false);
        check(Value::Integer(i64::MAX), Value::real(9_223_372_036_854_775_807.0), Collation::Binary, false);
        check(Value::Integer(7), Value::text("7"), Collation::Binary, false);
        check(Value::text("a"), Value::Blob(b"a".to_vec()), Collation::Binary, false);
        check(Value::text("Lee"), Value::text("lEE"), Collation::Nocase, true);
        check(Value::text("É"), Value::text("é"), Collation::Nocase, false);
        check(Value::text("Lee"), Value::text("lee"), Collation::Binary, false);
        check(Value::text("a  "), Value::text("a"), Collation::Rtrim, true);
        check(Value::text(" a"), Value::text("a"), Collation::Rtrim, false);
    }

    proptest! {
        #[test]
        fn every_value_comes_back_from_json(value in values()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&serde_json::to_string(&value).unwrap()).unwrap(), value);
        }

        #[test]
        fn one_form_stands_for_all_that_are_one_key(a in values(), b in values()) {
            for collation in [Collation::Binary, Collation::Nocase, Collation::Rtrim] {
                let bytes = |value: &Value| { let mut into = Vec::new(); value.index_bytes(collation, &mut into); into };
                prop_assert_eq!(a.canonical(collation) == b.canonical(collation), bytes(&a) == bytes(&b), "{:?}", collation);
                prop_assert_eq!(bytes(&a.canonical(collation)), bytes(&a));
            }
        }

        #[test]
        fn values_that_differ_have_hashes_that_differ(a in values(), b in values()) {
            prop_assert_eq!(a == b, a.hash() == b.hash());
        }
    }
}
