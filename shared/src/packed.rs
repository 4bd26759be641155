//! The compact form of a page of rows. Pure.
//!
//! Rows that follow each other and have the same shape (table, kind, columns) make a run; a run is written column by
//! column, each number as its difference to the one before, so that what is alike stands together and zstd finds it. The
//! head of the page stays JSON. Read with `application/vnd.whimbrel.rows`.
//!
//! `"whr1"`, length of the plain bytes (u32, little endian), a zstd frame of them. Plain: length and JSON of the head,
//! then runs until the end.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    change::{Cell, Change, Edit, MAX_PAGE_BYTES, MAX_PAGE_CELLS, MAX_PAGE_ROWS, Row},
    columns::MAX_ID,
    hlc::Clock,
    synced::MAX_KEY_COLUMNS,
    value::Value,
};

/// The media type.
pub const CONTENT_TYPE: &str = "application/vnd.whimbrel.rows";
/// Largest page in this form, in bytes. Values that do not compress take as much as they are.
pub const MAX_PACKED_BYTES: usize = MAX_PLAIN_BYTES + 64 * 1024;
/// Most bytes before compression: a page of values, with the numbers beside them.
const MAX_PLAIN_BYTES: usize = 2 * MAX_PAGE_BYTES;
const MAGIC: &[u8; 4] = b"whr1";
/// zstd's own default: what is above costs a phone's battery for a few percent.
const LEVEL: i32 = 3;

/// Why bytes are no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPage {
    /// Not this form, or of a later release.
    #[error("it does not begin as a page of rows does")]
    NotAPage,
    /// zstd's word, or a length that is not right.
    #[error("it cannot be unpacked: {0}")]
    Packing(String),
    /// The plain bytes end too early.
    #[error("it ends in the middle of {0}")]
    CutOff(&'static str),
    /// More than a page holds.
    #[error("it has more than {most} {what}")]
    TooMuch {
        /// Rows, cells or bytes.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A number that cannot be.
    #[error("{0} is out of its range")]
    Range(&'static str),
    /// The head is not what is expected.
    #[error("its head is not what is expected: {0}")]
    Head(String),
}

/// The content of a page of changes, whatever form it came in: what a push's id is bound to.
pub fn plain_changes<H: Serialize>(head: &H, changes: &[Change]) -> Vec<u8> {
    let mut out = start(head);
    runs(changes, &mut out);
    out
}

/// Changes with a head.
pub fn pack_changes<H: Serialize>(head: &H, changes: &[Change]) -> Vec<u8> {
    pack(&plain_changes(head, changes))
}

/// Rows with a head.
pub fn pack_rows<H: Serialize>(head: &H, rows: &[Row]) -> Vec<u8> {
    let mut out = start(head);
    runs(rows, &mut out);
    pack(&out)
}

/// What [`pack_changes`] made. Shapes and counts are checked; whether each is a change is not.
pub fn unpack_changes<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, Vec<Change>), BadPage> {
    unpack(bytes)
}

/// What [`pack_rows`] made.
pub fn unpack_rows<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, Vec<Row>), BadPage> {
    unpack(bytes)
}

fn start<H: Serialize>(head: &H) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("a head has text keys");
    let mut out = Vec::with_capacity(64 * 1024);
    number(head.len() as u64, &mut out);
    out.extend_from_slice(&head);
    out
}

fn pack(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() / 4 + 64);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&zstd::bulk::compress(plain, LEVEL).expect("compressing memory into memory has no way to fail"));
    out
}

fn unpack<H: DeserializeOwned, I: Item>(bytes: &[u8]) -> Result<(H, Vec<I>), BadPage> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(BadPage::NotAPage)?;
    let (length, frame) = rest.split_first_chunk::<4>().ok_or(BadPage::CutOff("its length"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_PLAIN_BYTES {
        return Err(BadPage::TooMuch { what: "bytes", most: MAX_PLAIN_BYTES });
    }
    let plain = zstd::bulk::decompress(frame, length).map_err(|e| BadPage::Packing(e.to_string()))?;
    if plain.len() != length {
        return Err(BadPage::Packing(format!("{} bytes came out, and {length} were announced", plain.len())));
    }
    let mut input = Input(&plain);
    let head = input.number("the head")?;
    let head = input.take(usize::try_from(head).unwrap_or(usize::MAX), "the head")?;
    let head = serde_json::from_slice(head).map_err(|e| BadPage::Head(e.to_string()))?;
    let (mut items, mut cells) = (Vec::new(), 0);
    while !input.0.is_empty() {
        read_run(&mut input, &mut items, &mut cells)?;
    }
    Ok((head, items))
}

/// What a run is made of: a row up or down, as its parts. `a` and `b` are the two numbers of the row, `c` and `d` those of
/// a cell, as differences to the row's.
trait Item: Sized {
    const CELL_NUMBERS: bool;
    fn table(&self) -> u32;
    fn key(&self) -> &[Value];
    /// None: deleted.
    fn width(&self) -> Option<usize>;
    fn cell(&self, at: usize) -> (u32, &Value);
    fn numbers(&self) -> (u64, Clock);
    fn cell_numbers(&self, at: usize) -> (u64, Clock);
    fn make(table: u32, key: Vec<Value>, numbers: (u64, Clock), cells: Option<Vec<Cell>>) -> Self;
}

impl Item for Change {
    const CELL_NUMBERS: bool = true;

    fn table(&self) -> u32 {
        self.table
    }
    fn key(&self) -> &[Value] {
        &self.key
    }
    fn width(&self) -> Option<usize> {
        match &self.edit {
            Edit::Present { cells, .. } => Some(cells.len()),
            Edit::Deleted { .. } => None,
        }
    }
    fn cell(&self, at: usize) -> (u32, &Value) {
        let cell = &self.cells()[at];
        (cell.column, &cell.value)
    }
    fn numbers(&self) -> (u64, Clock) {
        match &self.edit {
            Edit::Present { seen, cells } => (*seen, cells.first().map_or(Clock::ZERO, |c| c.clock)),
            Edit::Deleted { base, clock } => (*base, *clock),
        }
    }
    fn cell_numbers(&self, at: usize) -> (u64, Clock) {
        let cell = &self.cells()[at];
        (cell.base, cell.clock)
    }
    fn make(table: u32, key: Vec<Value>, (number, clock): (u64, Clock), cells: Option<Vec<Cell>>) -> Self {
        let edit = match cells {
            Some(cells) => Edit::Present { seen: number, cells },
            None => Edit::Deleted { base: number, clock },
        };
        Self { table, key, edit }
    }
}

impl Change {
    fn cells(&self) -> &[Cell] {
        match &self.edit {
            Edit::Present { cells, .. } => cells,
            Edit::Deleted { .. } => &[],
        }
    }
}

impl Item for Row {
    const CELL_NUMBERS: bool = false;

    fn table(&self) -> u32 {
        self.table
    }
    fn key(&self) -> &[Value] {
        &self.key
    }
    fn width(&self) -> Option<usize> {
        self.values.as_ref().map(Vec::len)
    }
    fn cell(&self, at: usize) -> (u32, &Value) {
        let (column, value) = &self.values.as_ref().expect("it has a width")[at];
        (*column, value)
    }
    fn numbers(&self) -> (u64, Clock) {
        (self.version, self.clock)
    }
    fn cell_numbers(&self, _: usize) -> (u64, Clock) {
        (self.version, self.clock)
    }
    fn make(table: u32, key: Vec<Value>, (version, clock): (u64, Clock), cells: Option<Vec<Cell>>) -> Self {
        Self { table, key, version, clock, values: cells.map(|cells| cells.into_iter().map(|c| (c.column, c.value)).collect()) }
    }
}

fn same_shape<I: Item>(a: &I, b: &I) -> bool {
    a.table() == b.table()
        && a.key().len() == b.key().len()
        && a.width() == b.width()
        && (0..a.width().unwrap_or(0)).all(|at| a.cell(at).0 == b.cell(at).0)
}

fn runs<I: Item>(items: &[I], out: &mut Vec<u8>) {
    for run in items.chunk_by(same_shape) {
        let first = &run[0];
        let width = first.width();
        for part in [first.table().into(), first.key().len() as u64, width.map_or(0, |w| w as u64 + 1), run.len() as u64] {
            number(part, out);
        }
        let columns = width.unwrap_or(0);
        let mut last = 0;
        for at in 0..columns {
            number(u64::from(first.cell(at).0.wrapping_sub(last)), out);
            last = first.cell(at).0;
        }
        differences(run.iter().map(|i| i.numbers().0), out);
        clocks(run.iter().map(|i| (i.numbers().1, None)), out);
        for at in 0..first.key().len() {
            stream(run.iter().map(|i| &i.key()[at]), out);
        }
        for at in 0..columns {
            stream(run.iter().map(|i| i.cell(at).1), out);
            if I::CELL_NUMBERS {
                for item in run {
                    number(item.numbers().0.wrapping_sub(item.cell_numbers(at).0), out);
                }
                clocks(run.iter().map(|i| (i.cell_numbers(at).1, Some(i.numbers().1))), out);
            }
        }
    }
}

/// One column of a run as it was read; the last two are empty where cells have no numbers.
struct Part {
    column: u32,
    values: Vec<Value>,
    bases: Vec<u64>,
    times: Vec<Clock>,
}

fn read_run<I: Item>(input: &mut Input<'_>, items: &mut Vec<I>, cells: &mut usize) -> Result<(), BadPage> {
    let table = input.id("a table's id")?;
    let keys = input.count("the columns of a key", MAX_KEY_COLUMNS)?;
    let width = input.count("the columns of a row", MAX_PAGE_CELLS)?.checked_sub(1);
    let rows = input.count("rows", MAX_PAGE_ROWS)?;
    if items.len() + rows > MAX_PAGE_ROWS {
        return Err(BadPage::TooMuch { what: "rows", most: MAX_PAGE_ROWS });
    }
    *cells = cells.saturating_add(rows.saturating_mul(keys + width.unwrap_or(0)));
    if *cells > MAX_PAGE_CELLS {
        return Err(BadPage::TooMuch { what: "cells", most: MAX_PAGE_CELLS });
    }
    let mut columns = Vec::new();
    let mut last = 0u64;
    for _ in 0..width.unwrap_or(0) {
        last = last.checked_add(input.number("a column's id")?).filter(|id| *id <= MAX_ID.into()).ok_or(BadPage::Range("a column's id"))?;
        columns.push(last as u32);
    }
    let numbers = input.differences(rows)?;
    let moments = input.clocks(rows, |_| None)?;
    let mut key_parts = (0..keys).map(|_| input.stream(rows)).collect::<Result<Vec<_>, _>>()?;
    let mut parts: Vec<Part> = Vec::new();
    for column in columns {
        let values = input.stream(rows)?;
        let (mut bases, mut times) = (Vec::new(), Vec::new());
        if I::CELL_NUMBERS {
            for seen in &numbers {
                bases.push(seen.wrapping_sub(input.number("a base")?));
            }
            times = input.clocks(rows, |at| Some(moments[at]))?;
        }
        parts.push(Part { column, values, bases, times });
    }
    for at in 0..rows {
        // Taken, not removed: the lists keep their places.
        let key = key_parts.iter_mut().map(|part| std::mem::replace(&mut part[at], Value::Null)).collect();
        let cells = width.map(|_| {
            let cell = |part: &mut Part| Cell {
                column: part.column,
                value: std::mem::replace(&mut part.values[at], Value::Null),
                base: part.bases.get(at).copied().unwrap_or(0),
                clock: part.times.get(at).copied().unwrap_or_default(),
            };
            parts.iter_mut().map(cell).collect()
        });
        items.push(I::make(table, key, (numbers[at], moments[at]), cells));
    }
    Ok(())
}

// Classes in a stream. A REAL that is a short decimal is written as the integer it is of its last digit: 12.5 as 125 tenths.
const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;
const DECIMAL: u8 = 8;
const MOST_DIGITS: u8 = 6;
/// Set where the whole stream has one class.
const ALIKE: u8 = 0x80;

fn decimal(bits: u64) -> Option<(u8, i64)> {
    let real = f64::from_bits(bits);
    (0..=MOST_DIGITS).find_map(|digits| {
        let scaled = (real * 10f64.powi(digits.into())).round();
        let whole = (scaled.abs() < 9e15).then_some(scaled as i64)?;
        (undecimal(digits, whole) == bits).then_some((digits, whole))
    })
}

fn undecimal(digits: u8, whole: i64) -> u64 {
    (whole as f64 / 10f64.powi(digits.into())).to_bits()
}

/// Writes one column: classes, then numbers, then lengths, then bytes.
fn stream<'a>(values: impl Iterator<Item = &'a Value>, out: &mut Vec<u8>) {
    let (mut classes, mut numbers, mut lengths, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut last = 0i64;
    let mut whole = |i: i64, into: &mut Vec<u8>| {
        number(zigzag(i.wrapping_sub(last)), into);
        last = i;
    };
    for value in values {
        classes.push(match value {
            Value::Null => NULL,
            Value::Integer(i) => {
                whole(*i, &mut numbers);
                INTEGER
            }
            Value::Real(bits) => match decimal(*bits) {
                Some((digits, i)) => {
                    whole(i, &mut numbers);
                    DECIMAL + digits
                }
                None => {
                    bytes.extend_from_slice(&bits.to_le_bytes());
                    REAL
                }
            },
            Value::Text(text) => {
                number(text.len() as u64, &mut lengths);
                bytes.extend_from_slice(text);
                TEXT
            }
            Value::Blob(blob) => {
                number(blob.len() as u64, &mut lengths);
                bytes.extend_from_slice(blob);
                BLOB
            }
        });
    }
    match classes.first() {
        Some(first) if classes.iter().all(|c| c == first) => out.push(ALIKE | first),
        _ => out.extend_from_slice(&classes),
    }
    for part in [numbers, lengths, bytes] {
        out.extend_from_slice(&part);
    }
}

fn differences(numbers: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let mut last = 0u64;
    for n in numbers {
        number(zigzag(n.wrapping_sub(last) as i64), out);
        last = n;
    }
}

/// Clocks as the differences of their times, to the one given beside or to the one before, and then their counters.
fn clocks(clocks: impl Iterator<Item = (Clock, Option<Clock>)> + Clone, out: &mut Vec<u8>) {
    let mut last = 0;
    for (clock, beside) in clocks.clone() {
        number(zigzag(clock.wall_ms() as i64 - beside.map_or(last, |c| c.wall_ms() as i64)), out);
        last = clock.wall_ms() as i64;
    }
    for (clock, beside) in clocks {
        number(zigzag(i64::from(clock.counter()) - beside.map_or(0, |c| c.counter().into())), out);
    }
}

fn zigzag(i: i64) -> u64 {
    (i << 1 ^ i >> 63) as u64
}

fn unzigzag(u: u64) -> i64 {
    (u >> 1) as i64 ^ -((u & 1) as i64)
}

/// Seven bits a byte, the lowest first.
fn number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Plain bytes that are being read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], BadPage> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadPage::CutOff(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, what: &'static str) -> Result<u64, BadPage> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1, what)?[0];
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            n |= part << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(BadPage::Range(what))
    }

    fn count(&mut self, what: &'static str, most: usize) -> Result<usize, BadPage> {
        let count = self.number(what)?;
        usize::try_from(count).ok().filter(|c| *c <= most).ok_or(BadPage::TooMuch { what, most })
    }

    fn id(&mut self, what: &'static str) -> Result<u32, BadPage> {
        u32::try_from(self.number(what)?).map_err(|_| BadPage::Range(what))
    }

    fn differences(&mut self, rows: usize) -> Result<Vec<u64>, BadPage> {
        let mut last = 0u64;
        let mut next = || {
            last = last.wrapping_add(unzigzag(self.number("a version")?) as u64);
            Ok(last)
        };
        (0..rows).map(|_| next()).collect()
    }

    fn clocks(&mut self, rows: usize, beside: impl Fn(usize) -> Option<Clock>) -> Result<Vec<Clock>, BadPage> {
        let bad = BadPage::Range("a clock");
        let mut last = 0i64;
        let mut walls = Vec::with_capacity(rows);
        for at in 0..rows {
            let from = beside(at).map_or(last, |c| c.wall_ms() as i64);
            last = from.checked_add(unzigzag(self.number("a clock")?)).ok_or(bad.clone())?;
            walls.push(last);
        }
        let clock = |(at, wall): (usize, i64)| {
            let counter = i64::from(beside(at).map_or(0, Clock::counter)).checked_add(unzigzag(self.number("a clock")?));
            let counter = counter.and_then(|c| u16::try_from(c).ok()).ok_or(bad.clone())?;
            let wall = u64::try_from(wall).ok().filter(|w| w >> 47 == 0).ok_or(bad.clone())?;
            Clock::from_bits(wall << 16 | u64::from(counter)).ok_or(bad.clone())
        };
        walls.into_iter().enumerate().map(clock).collect()
    }

    fn stream(&mut self, rows: usize) -> Result<Vec<Value>, BadPage> {
        if rows == 0 {
            return Ok(Vec::new());
        }
        let alike = self.0.first().is_some_and(|c| c & ALIKE != 0);
        let classes = self.take(if alike { 1 } else { rows }, "the classes of values")?;
        let class = |at: usize| if alike { classes[0] & !ALIKE } else { classes[at] };
        let mut wholes = Vec::new();
        let mut last = 0i64;
        for at in 0..rows {
            match class(at) {
                INTEGER | DECIMAL..=14 => {
                    last = last.wrapping_add(unzigzag(self.number("an integer")?));
                    wholes.push(last);
                }
                NULL | REAL | TEXT | BLOB => {}
                _ => return Err(BadPage::Range("the class of a value")),
            }
        }
        let mut lengths = Vec::with_capacity(rows);
        for at in 0..rows {
            lengths.push(match class(at) {
                TEXT | BLOB => usize::try_from(self.number("a length")?).unwrap_or(usize::MAX),
                REAL => 8,
                _ => 0,
            });
        }
        let mut wholes = wholes.into_iter();
        let mut values = Vec::with_capacity(rows);
        for (at, length) in lengths.into_iter().enumerate() {
            let bytes = self.take(length, "a value")?;
            let mut whole = || wholes.next().expect("one was read for each of these classes");
            values.push(match class(at) {
                NULL => Value::Null,
                INTEGER => Value::Integer(whole()),
                REAL => Value::Real(u64::from_le_bytes(bytes.try_into().expect("eight were taken"))),
                TEXT => Value::Text(bytes.to_vec()),
                BLOB => Value::Blob(bytes.to_vec()),
                digits => Value::Real(undecimal(digits - DECIMAL, whole())),
            });
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests;
