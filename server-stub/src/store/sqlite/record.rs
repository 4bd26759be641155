//! One row as it lies in the store: its key, its level, its cells by column id with version, clock and writer, or who deleted
//! it. Pure.
//!
//! Every number is written with seven bits a byte. What is the same as in the cell before (version, writer, clock) costs one
//! byte, so a row that was written at once is hardly longer than its values.

use whimbrel_shared::{
    hlc::{Clock, Stamp},
    resolve::{Held, State, What, Writer},
    value::Value,
};

use crate::store::StoreError;

const FORMAT: u8 = 2;
const DELETED: u8 = 1;
const PRESENT: u8 = 0;

/// A row with its key as it was last written, and its level: the version up to which its cells are filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<Value>,
    pub(super) level: u32,
    pub(super) state: State,
}

/// Numbers for writers, both ways.
pub(super) trait Writers {
    fn number(&mut self, writer: Writer) -> Result<u64, StoreError>;
    fn writer(&mut self, number: u64) -> Result<Writer, StoreError>;
}

pub(super) fn encode(key: &[Value], level: u32, state: &State, writers: &mut impl Writers) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![FORMAT];
    number(key.len() as u64, &mut out);
    key.iter().for_each(|part| value(part, &mut out));
    number(level.into(), &mut out);
    number(writers.number(state.origin)?, &mut out);
    match &state.what {
        What::Deleted(by, stamp) => {
            out.push(DELETED);
            number(writers.number(*by)?, &mut out);
            number(stamp.clock.bits(), &mut out);
            // Where another's clock is preferred, by another's name; its epoch decides nothing.
            number(writers.number(Writer { client: stamp.client, epoch: by.epoch })?, &mut out);
        }
        What::Present(cells) => {
            out.push(PRESENT);
            number(cells.len() as u64, &mut out);
            let mut last: Option<(u64, Writer, Clock)> = None;
            for cell in cells {
                number(cell.column.into(), &mut out);
                let now = (cell.version, cell.by, cell.stamp.clock);
                if last == Some(now) {
                    out.push(0);
                } else {
                    // Behind the row's own version, and one more: 0 is "as before".
                    number(state.version.saturating_sub(cell.version) + 1, &mut out);
                    number(writers.number(cell.by)?, &mut out);
                    number(cell.stamp.clock.bits(), &mut out);
                    last = Some(now);
                }
                value(&cell.value, &mut out);
            }
        }
    }
    Ok(out)
}

/// What [`encode`] made of a row that has that version.
pub(super) fn decode(bytes: &[u8], version: u64, writers: &mut impl Writers) -> Result<Record, StoreError> {
    let mut input = Input(bytes);
    if input.byte()? != FORMAT {
        return Err(damaged("its format is unknown"));
    }
    let parts = input.number()?;
    let key = (0..parts).map(|_| input.value()).collect::<Result<_, _>>()?;
    let level = u32::try_from(input.number()?).map_err(|_| damaged("its level is too large"))?;
    let origin = writers.writer(input.number()?)?;
    let what = match input.byte()? {
        DELETED => {
            let by = writers.writer(input.number()?)?;
            let clock = input.clock()?;
            What::Deleted(by, Stamp { clock, client: writers.writer(input.number()?)?.client })
        }
        PRESENT => {
            let count = input.number()?;
            let mut cells = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len()));
            let mut last = None;
            for _ in 0..count {
                let column = u32::try_from(input.number()?).map_err(|_| damaged("a column's id is too large"))?;
                let behind = input.number()?;
                if behind > 0 {
                    let written = version.checked_sub(behind - 1).ok_or_else(|| damaged("a version is below 0"))?;
                    last = Some((written, writers.writer(input.number()?)?, input.clock()?));
                }
                let (version, by, clock) = last.ok_or_else(|| damaged("its first cell has no version"))?;
                cells.push(Held { column, value: input.value()?, version, by, stamp: Stamp { clock, client: by.client } });
            }
            What::Present(cells)
        }
        _ => return Err(damaged("it is neither there nor deleted")),
    };
    Ok(Record { key, level, state: State { version, origin, what } })
}

fn damaged(why: &str) -> StoreError {
    StoreError::Damaged(format!("a row's record cannot be read: {why}"))
}

fn number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0),
        Value::Integer(i) => {
            out.push(1);
            number((i << 1 ^ i >> 63) as u64, out);
        }
        Value::Real(bits) => {
            out.push(2);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Value::Text(bytes) | Value::Blob(bytes) => {
            out.push(if matches!(value, Value::Text(_)) { 3 } else { 4 });
            number(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(damaged("a number is too long"))
    }

    fn clock(&mut self) -> Result<Clock, StoreError> {
        Clock::from_bits(self.number()?).ok_or_else(|| damaged("a clock is out of range"))
    }

    fn value(&mut self) -> Result<Value, StoreError> {
        Ok(match self.byte()? {
            0 => Value::Null,
            1 => {
                let n = self.number()?;
                Value::Integer((n >> 1) as i64 ^ -((n & 1) as i64))
            }
            2 => Value::Real(u64::from_le_bytes(self.take(8)?.try_into().expect("eight were taken"))),
            class @ (3 | 4) => {
                let length = usize::try_from(self.number()?).map_err(|_| damaged("a value is too long"))?;
                let bytes = self.take(length)?.to_vec();
                if class == 3 { Value::Text(bytes) } else { Value::Blob(bytes) }
            }
            _ => return Err(damaged("a value has no class")),
        })
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::ids::ClientId;

    use super::*;

    #[derive(Default)]
    struct Some2(Vec<Writer>);

    impl Writers for Some2 {
        fn number(&mut self, writer: Writer) -> Result<u64, StoreError> {
            let at = self.0.iter().position(|w| *w == writer).unwrap_or_else(|| {
                self.0.push(writer);
                self.0.len() - 1
            });
            Ok(at as u64)
        }
        fn writer(&mut self, number: u64) -> Result<Writer, StoreError> {
            self.0.get(number as usize).copied().ok_or_else(|| damaged("no such writer"))
        }
    }

    fn states() -> Vec<State> {
        let writer = |n| Writer { client: ClientId::from_dice(n), epoch: 1 };
        let stamp = |n| Stamp { clock: Clock::at_ms(5), client: ClientId::from_dice(n) };
        let values = [Value::Null, Value::Integer(i64::MIN), Value::real(0.5), Value::Text(vec![0xff]), Value::Blob(vec![1; 300])];
        let held = |(at, value): (usize, Value)| {
            let by = if at < 3 { 1 } else { 2 };
            Held { column: 2 + at as u32, value, version: 90 + by as u64, by: writer(by), stamp: stamp(by) }
        };
        vec![
            State { version: 92, origin: writer(3), what: What::Present(values.into_iter().enumerate().map(held).collect()) },
            State { version: 7, origin: writer(1), what: What::Present(Vec::new()) },
            State { version: u64::MAX, origin: writer(1), what: What::Deleted(writer(2), stamp(1)) },
        ]
    }

    #[test]
    fn a_record_comes_back_and_one_that_is_cut_off_is_damaged() {
        let mut writers = Some2::default();
        for state in states() {
            let key = vec![Value::text("a"), Value::Integer(-1)];
            let bytes = encode(&key, 7, &state, &mut writers).unwrap();
            assert_eq!(decode(&bytes, state.version, &mut writers).unwrap(), Record { key, level: 7, state: state.clone() });
            for end in 0..bytes.len() {
                assert!(matches!(decode(&bytes[..end], state.version, &mut writers), Err(StoreError::Damaged(_))), "{end}");
            }
        }
    }
}
