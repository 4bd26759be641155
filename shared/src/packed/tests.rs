//! What a page weighs, and what becomes of bytes that are none.

use proptest::prelude::*;

use super::*;
use crate::change::tests::{changes, clocks};

fn rows() -> impl Strategy<Value = Row> {
    (changes(), any::<u64>(), clocks()).prop_map(|(change, version, clock)| {
        let values = change.width().map(|_| change.cells().iter().map(|c| (c.column, c.value.clone())).collect());
        Row { table: change.table, key: change.key, version, clock, values }
    })
}

/// Ten thousand rows of the five columns that capture is measured with: a key, a title, a number, a price, a time.
pub(crate) fn sample(rows: u64, key: impl Fn(u64) -> Value) -> Vec<Change> {
    const WORDS: [&str; 16] =
        ["red", "green", "small", "large", "apple", "bread", "milk", "soap", "lamp", "chair", "paper", "glass", "shoe", "shirt", "phone", "cable"];
    // A plain generator with a fixed seed: the figure is the same everywhere.
    let mut state = 7u64;
    let mut dice = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    (0..rows)
        .map(|at| {
            let title = format!("{} {} {}", WORDS[dice(16) as usize], WORDS[dice(16) as usize], WORDS[dice(16) as usize]);
            let clock = Clock::at_ms(1_750_000_000_000 + at as i64 * 40 + dice(40) as i64);
            let values = [
                Value::text(&title),
                Value::Integer(dice(1000) as i64),
                Value::real(dice(20_000) as f64 / 100.0),
                Value::Integer(1_750_000_000 + at as i64 * 4 + dice(4) as i64),
            ];
            let cells = (2..).zip(values).map(|(column, value)| Cell { column, value, base: 0, clock }).collect();
            Change { table: 1, key: vec![key(at)], edit: Edit::Present { seen: 0, cells } }
        })
        .collect()
}

#[test]
fn the_sample_of_five_columns_takes_at_most_twenty_bytes_a_row() {
    let bytes = |changes: &[Change]| pack_changes(&(), changes).len() as f64 / changes.len() as f64;
    let numbered = bytes(&sample(10_000, |at| Value::Integer(at as i64)));
    let named = bytes(&sample(10_000, |at| Value::text(&format!("item-{at:06}"))));
    let random = bytes(&sample(10_000, |at| Value::text(&Value::Integer(at as i64).hash().0.to_string())));
    let json = serde_json::to_vec(&sample(10_000, |at| Value::Integer(at as i64))).unwrap().len() / 10_000;
    println!(
        "bytes a row: {numbered:.1} with numbers as keys, {named:.1} with counted names, {random:.1} with random 64 bits in decimal; JSON {json}"
    );
    assert!(numbered <= 20.0 && named <= 20.0, "{numbered} {named}");
}

#[test]
fn what_announces_more_than_a_page_is_refused_before_room_is_made_for_it() {
    let refused = |bytes: &[u8]| unpack_changes::<()>(bytes).unwrap_err();
    assert_eq!(refused(b"whr2"), BadPage::NotAPage);
    assert_eq!(refused(b"whr1\xff\xff\xff"), BadPage::CutOff("its length"));
    assert_eq!(refused(b"whr1\xff\xff\xff\xff"), BadPage::TooMuch { what: "bytes", most: MAX_PLAIN_BYTES });
    // A frame that holds more than was announced.
    let mut bomb = pack(&vec![0; 1_000_000]);
    bomb[4..8].copy_from_slice(&1000u32.to_le_bytes());
    assert!(matches!(refused(&bomb), BadPage::Packing(_)));
    // A run of NULLs costs next to nothing to write and forty bytes a cell to read.
    let run = |rows: u64, width: u64| {
        let mut plain = start(&());
        for part in [1, 1, width + 1, rows] {
            number(part, &mut plain);
        }
        plain.resize(plain.len() + 4_000_000, 0);
        pack(&plain)
    };
    assert_eq!(refused(&run(10_001, 1)), BadPage::TooMuch { what: "rows", most: MAX_PAGE_ROWS });
    assert_eq!(refused(&run(10_000, 100)), BadPage::TooMuch { what: "cells", most: MAX_PAGE_CELLS });
    let many = pack_changes(&(), &sample(10_001, |at| Value::Integer(at as i64)));
    assert_eq!(refused(&many), BadPage::TooMuch { what: "rows", most: MAX_PAGE_ROWS });
}

proptest! {
    #[test]
    fn changes_come_back_as_they_were(head in ".{0,20}", changes in prop::collection::vec(changes(), 0..40)) {
        let packed = pack_changes(&head, &changes);
        prop_assert_eq!(unpack_changes::<String>(&packed).unwrap(), (head, changes));
    }

    #[test]
    fn rows_come_back_as_they_were(rows in prop::collection::vec(rows(), 0..40)) {
        prop_assert_eq!(unpack_rows::<u32>(&pack_rows(&7, &rows)).unwrap(), (7, rows));
    }

    #[test]
    fn a_page_cut_at_any_byte_is_refused(changes in prop::collection::vec(changes(), 1..10), at in any::<prop::sample::Index>()) {
        let packed = pack_changes(&(), &changes);
        prop_assert!(unpack_changes::<()>(&packed[..at.index(packed.len())]).is_err());
        // The plain bytes cut: a whole number of runs may be left, and never another row than was written.
        let plain = plain_changes(&(), &changes);
        let cut = pack(&plain[..at.index(plain.len())]);
        if let Ok(((), read)) = unpack_changes::<()>(&cut) {
            prop_assert!(changes.starts_with(&read));
        }
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused_and_never_more(plain in prop::collection::vec(any::<u8>(), 0..200), changed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), changes in prop::collection::vec(changes(), 1..10)) {
        let _ = unpack_changes::<serde_json::Value>(&plain);
        let _ = unpack_rows::<serde_json::Value>(&pack(&plain));
        let mut bytes = plain_changes(&(), &changes);
        for (at, byte) in changed {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(((), read)) = unpack_changes::<()>(&pack(&bytes)) {
            prop_assert!(read.len() <= MAX_PAGE_ROWS);
            // What was read is a page again.
            prop_assert_eq!(unpack_changes::<()>(&pack_changes(&(), &read)).unwrap().1, read);
        }
    }

    #[test]
    fn numbers_of_every_size_come_back(n in any::<u64>(), i in any::<i64>()) {
        let mut out = Vec::new();
        number(n, &mut out);
        prop_assert_eq!(Input(&out).number("").unwrap(), n);
        prop_assert_eq!(unzigzag(zigzag(i)), i);
    }
}
