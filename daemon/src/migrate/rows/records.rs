//! Shipped rows: NDJSON (one object a line) and CSV (a header, then rows; an empty field is NULL). Both are read from
//! anywhere, so that a load goes on where it stopped.

use std::{fmt, sync::Arc};

use rusqlite::types::Value;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer};

use super::table::from_json;

/// One shipped row. Rows with the same columns in the same order share their names: a file of a million rows has one list.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Line of the file, from 1.
    pub line: u64,
    /// Its columns, in the file's order, each once.
    pub columns: Arc<[String]>,
    /// Their values.
    pub values: Vec<Value>,
}

impl Record {
    /// Its columns with their values.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.columns.iter().map(String::as_str).zip(&self.values)
    }
}

/// Where reading stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Bytes before it.
    pub byte: usize,
    /// Lines before it.
    pub line: u64,
}

/// How the rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

impl Form {
    /// By the file's name.
    pub fn of(file: &str) -> Option<Self> {
        let end = file.rsplit_once('.')?.1.to_ascii_lowercase();
        match end.as_str() {
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Reads up to `most` rows of `text` from `place` on. Returns them and where the next begins; no rows: the end.
pub fn read(form: Form, text: &str, place: Place, most: u32) -> Result<(Vec<Record>, Place), String> {
    match form {
        Form::Ndjson => ndjson(text, place, most),
        Form::Csv => csv(text, place, most),
    }
}

/// Rows of a whole file, counted without being read.
pub fn count(form: Form, text: &str) -> u64 {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count() as u64;
    match form {
        Form::Ndjson => lines,
        Form::Csv => lines.saturating_sub(1),
    }
}

fn ndjson(text: &str, mut place: Place, most: u32) -> Result<(Vec<Record>, Place), String> {
    let mut records = Vec::new();
    let mut columns: Arc<[String]> = Arc::default();
    while records.len() < most as usize && place.byte < text.len() {
        let rest = text.get(place.byte..).ok_or("it goes on in the middle of a character")?;
        let length = rest.find('\n').map_or(rest.len(), |n| n + 1);
        let body = rest[..length].trim_start_matches('\u{feff}').trim();
        place = Place { byte: place.byte + length, line: place.line + 1 };
        if body.is_empty() {
            continue;
        }
        let line = place.line;
        let mut json = serde_json::Deserializer::from_str(body);
        let row = Row { columns: &mut columns }.deserialize(&mut json).and_then(|values| json.end().map(|()| values));
        let values = row.map_err(|e| format!("line {line}: it is not one JSON object with values that SQLite can hold: {e}"))?;
        records.push(Record { line, columns: columns.clone(), values });
    }
    Ok((records, place))
}

/// Reads one object's values. `columns` are those of the row before, and become those of this one.
struct Row<'c> {
    columns: &'c mut Arc<[String]>,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::with_capacity(self.columns.len());
        // Names of its own, from where they differ from those of the row before.
        let mut own: Option<Vec<String>> = None;
        while let Some(other) = map.next_key_seed(Name { expected: own.as_ref().map_or_else(|| self.columns.get(values.len()), |_| None) })? {
            if let Some(name) = other {
                let names = own.get_or_insert_with(|| self.columns[..values.len()].to_vec());
                if names.contains(&name) {
                    return Err(A::Error::custom(format!("{name:?} is there twice")));
                }
                names.push(name);
            }
            values.push(map.next_value_seed(Cell)?);
        }
        if let Some(own) = own {
            *self.columns = own.into();
        } else if values.len() < self.columns.len() {
            *self.columns = self.columns[..values.len()].into();
        }
        Ok(values)
    }
}

/// A column's name: none when it is the expected one.
struct Name<'e> {
    expected: Option<&'e String>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(if self.expected.is_some_and(|expected| expected == name) { None } else { Some(name.to_owned()) })
    }
}

/// One value, as [`from_json`] has it, without the JSON in between.
struct Cell;

impl<'de> DeserializeSeed<'de> for Cell {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Cell {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Integer(i64::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Real(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        from_json(serde::Deserialize::deserialize(SeqAccessDeserializer::new(seq))?).map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        from_json(serde::Deserialize::deserialize(MapAccessDeserializer::new(map))?).map_err(A::Error::custom)
    }
}

fn csv(text: &str, place: Place, most: u32) -> Result<(Vec<Record>, Place), String> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let say = |e: csv::Error| e.to_string();
    let header = reader.byte_headers().map_err(say)?.clone();
    let columns: Arc<[String]> = header.iter().map(|c| String::from_utf8_lossy(c).trim_start_matches('\u{feff}').trim().to_owned()).collect();
    if place.byte > 0 {
        let mut position = csv::Position::new();
        position.set_byte(place.byte as u64);
        let mut seekable = csv::ReaderBuilder::new().has_headers(false).from_reader(std::io::Cursor::new(text.as_bytes()));
        seekable.seek(position).map_err(say)?;
        return csv_rows(&mut seekable, text, place, &columns, most);
    }
    csv_rows(&mut reader, text, place, &columns, most)
}

fn csv_rows<R: std::io::Read>(
    reader: &mut csv::Reader<R>,
    text: &str,
    mut place: Place,
    columns: &Arc<[String]>,
    most: u32,
) -> Result<(Vec<Record>, Place), String> {
    let mut records = Vec::new();
    let mut row = csv::StringRecord::new();
    while records.len() < most as usize && reader.read_record(&mut row).map_err(|e| e.to_string())? {
        // The reader's own count is behind by one after CRLF.
        let ends = &text.as_bytes()[place.byte..];
        let start = row.position().map_or(place.byte, |p| usize::try_from(p.byte()).unwrap_or(usize::MAX)).clamp(place.byte, text.len());
        let start = text.as_bytes()[start..].iter().position(|b| !b"\r\n".contains(b)).map_or(text.len(), |n| start + n);
        place = Place { byte: start, line: place.line + ends[..start - place.byte].iter().filter(|b| **b == b'\n').count() as u64 };
        let line = place.line + 1;
        if row.len() != columns.len() {
            return Err(format!("line {line}: it has {} fields, and the header has {}", row.len(), columns.len()));
        }
        let value = |field: &str| if field.is_empty() { Value::Null } else { Value::Text(field.to_owned()) };
        records.push(Record { line, columns: columns.clone(), values: row.iter().map(value).collect() });
    }
    let byte = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX).clamp(place.byte, text.len());
    let line = place.line + text.as_bytes()[place.byte..byte].iter().filter(|b| **b == b'\n').count() as u64;
    Ok((records, Place { byte, line }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(form: Form, text: &str, step: u32) -> Vec<Record> {
        let (mut records, mut place) = (Vec::new(), Place::default());
        loop {
            let (some, next) = read(form, text, place, step).unwrap();
            if some.is_empty() {
                return records;
            }
            records.extend(some);
            place = next;
        }
    }

    #[test]
    fn both_forms_give_the_same_whatever_the_step() {
        let ndjson = "\u{feff}{\"id\": 1, \"a\": \"x\\ny\"}\r\n\n{\"id\": 2, \"a\": null}\n{\"id\": 3, \"a\": \"z\"}";
        let csv = "id,a\r\n1,\"x\ny\"\r\n2,\n3,\"z\"";
        for step in [1, 2, 10] {
            let (one, other) = (all(Form::Ndjson, ndjson, step), all(Form::Csv, csv, step));
            assert_eq!(one.iter().map(|r| r.values[1].clone()).collect::<Vec<_>>(), other.iter().map(|r| r.values[1].clone()).collect::<Vec<_>>());
            assert_eq!(one.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 3, 4]);
            assert_eq!(other.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 4, 5], "step {step}");
        }
        assert_eq!((count(Form::Ndjson, ndjson), Form::of("Cards.JSONL"), Form::of("cards")), (3, Some(Form::Ndjson), None));
    }

    #[test]
    fn rows_have_the_columns_that_their_line_has() {
        let text = "{\"a\":1,\"b\":2}\n{\"a\":3,\"b\":4}\n{\"a\":5}\n{\"b\":6,\"a\":7}\n{}\n{\"b\":8,\"a\":9,\"c\":10}\n";
        let rows = all(Form::Ndjson, text, 100);
        let cells: Vec<String> = rows
            .iter()
            .map(|r| r.cells().map(|(c, v)| format!("{c}{}", if let Value::Integer(n) = v { *n } else { -1 })).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(cells, ["a1 b2", "a3 b4", "a5", "b6 a7", "", "b8 a9 c10"]);
        assert!(Arc::ptr_eq(&rows[0].columns, &rows[1].columns), "names are shared");
    }

    #[test]
    fn values_are_those_of_from_json() {
        let text = r#"{"a":null,"b":true,"c":-3,"d":18446744073709551615,"e":0.1,"f":"x\ty","g":[1,"2"],"h":{"i":{}},"j":{"$blob":"00ff"},"k":9007199254740993}"#;
        let whole: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let read = all(Form::Ndjson, text, 1).remove(0);
        assert_eq!(read.values, whole.into_iter().map(|(_, v)| from_json(v).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        let error = |form, text| read(form, text, Place::default(), 10).unwrap_err();
        assert!(error(Form::Ndjson, "{\"a\":1}\n[1]").starts_with("line 2"));
        assert!(error(Form::Ndjson, "{\"a\":{\"$blob\":\"x\"}}").starts_with("line 1"));
        assert!(error(Form::Ndjson, "{\"a\":1}\n{\"b\":1,\"b\":2}").contains("\"b\" is there twice"));
        assert!(error(Form::Ndjson, "{\"a\":1}\n{\"a\":1,\"a\":2}").contains("line 2"));
        assert!(error(Form::Ndjson, "{\"a\":1} {}").contains("line 1"));
        assert!(error(Form::Csv, "a,b\n1,2\n3").contains('3'));
    }
}
