//! Whether two sides have the same rows, told without sending them: per table and column one sum over all rows. Pure.
//!
//! A sum is the addition, modulo 2^256, of the SHA-256 of each row's key and value. So no side has to sort, and a column that
//! differs is found by name. It proves that nothing went wrong, not that nobody forged: who may write rows needs no forgery.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::{
    ids::{BadId, Digest},
    value::Value,
};

/// The sum over the rows that have a value in a column. The order in which they are added is all one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSum {
    /// How many rows have one. A column that came with a default is not said by rows that were never written since, so this
    /// may be less than the table has; then the two sides can be compared only by a look at those rows.
    pub rows: u64,
    /// The sum.
    pub sum: Sum,
}

/// 256 bits as four numbers, the lowest first; on the wire 64 hex digits, the highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u64; 4]);

/// The sums of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSums {
    /// Id of the table.
    pub table: u32,
    /// Over the keys alone: which rows there are.
    pub keys: ColumnSum,
    /// By ascending column id, without the key.
    pub columns: Vec<(u32, ColumnSum)>,
}

impl TableSums {
    /// Of no rows.
    pub fn new(table: u32, columns: &[u32]) -> Self {
        Self { table, keys: ColumnSum::default(), columns: columns.iter().map(|id| (*id, ColumnSum::default())).collect() }
    }

    /// Adds a row by its key in the form of [`Value::canonical`]. Columns that this table's sums do not have are left out.
    pub fn add<'v>(&mut self, key: &[Value], cells: impl IntoIterator<Item = (u32, &'v Value)>) {
        self.keys.add(key, None);
        for (column, value) in cells {
            if let Ok(at) = self.columns.binary_search_by_key(&column, |(id, _)| *id) {
                self.columns[at].1.add(key, Some(value));
            }
        }
    }
}

impl ColumnSum {
    fn add(&mut self, key: &[Value], value: Option<&Value>) {
        let mut hasher = Sha256::new();
        key.iter().chain(value).for_each(|v| v.feed(&mut hasher));
        let hash: [u8; 32] = hasher.finalize().into();
        self.rows += 1;
        self.sum.add(&hash);
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8; 32]) {
        let mut carry = false;
        for (digit, part) in self.0.iter_mut().zip(bytes.chunks_exact(8)) {
            let part = u64::from_le_bytes(part.try_into().expect("eight of 32 bytes"));
            let (sum, over) = digit.overflowing_add(part);
            let (sum, again) = sum.overflowing_add(carry.into());
            (*digit, carry) = (sum, over || again);
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|digit| write!(f, "{digit:016x}"))
    }
}

impl FromStr for Sum {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let digest: Digest = text.parse().map_err(|_: BadId| BadId::new("sum", text, "it is 64 lower-case hex digits"))?;
        let mut sum = Self::default();
        for (digit, part) in sum.0.iter_mut().rev().zip(digest.as_bytes().chunks_exact(8)) {
            *digit = u64::from_be_bytes(part.try_into().expect("eight of 32 bytes"));
        }
        Ok(sum)
    }
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::tests::values;

    fn sums(rows: &[(i64, Option<Value>)]) -> TableSums {
        let mut sums = TableSums::new(1, &[2]);
        for (key, value) in rows {
            sums.add(&[Value::Integer(*key)], value.iter().map(|v| (2, v)).chain([(9, &Value::Null)]));
        }
        sums
    }

    #[test]
    fn a_sum_carries_and_is_written_with_its_highest_digits_first() {
        let mut sum = Sum([u64::MAX, u64::MAX, 7, 0]);
        let mut one = [0; 32];
        one[0] = 1;
        sum.add(&one);
        assert_eq!(sum, Sum([0, 0, 8, 0]));
        assert_eq!(sum.to_string(), format!("{}8{}", "0".repeat(31), "0".repeat(32)));
        let mut full = Sum([u64::MAX; 4]);
        full.add(&[0xff; 32]);
        assert_eq!(full, Sum([u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]));
    }

    proptest! {
        #[test]
        fn the_same_rows_in_any_order_have_the_same_sums_and_others_have_not(
            rows in prop::collection::btree_map(0i64..50, prop::option::of(values()), 1..20),
            seed in any::<u64>(),
            at in any::<prop::sample::Index>(),
            other in values(),
        ) {
            let mut rows: Vec<(i64, Option<Value>)> = rows.into_iter().collect();
            let before = sums(&rows);
            let length = rows.len();
            rows.rotate_left((seed as usize) % length);
            prop_assert_eq!(&sums(&rows), &before);
            prop_assert_eq!(serde_json::from_str::<TableSums>(&serde_json::to_string(&before).unwrap()).unwrap(), before.clone());
            let one = &mut rows[at.index(length)].1;
            let same = *one == Some(other.clone());
            *one = Some(other);
            prop_assert_eq!(sums(&rows) == before, same);
            rows.pop();
            prop_assert_ne!(sums(&rows).keys, before.keys);
        }
    }
}
