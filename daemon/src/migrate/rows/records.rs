//! Shipped rows: NDJSON (one object a line) and CSV (a header, then rows; an empty field is NULL). Both are read from
//! anywhere, so that a load goes on where it stopped.

use rusqlite::types::Value;

use super::table::from_json;

/// One shipped row.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Line of the file, from 1.
    pub line: u64,
    /// Columns with their values, in the file's order.
    pub values: Vec<(String, Value)>,
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
    while records.len() < most as usize && place.byte < text.len() {
        let rest = text.get(place.byte..).ok_or("it goes on in the middle of a character")?;
        let length = rest.find('\n').map_or(rest.len(), |n| n + 1);
        let body = rest[..length].trim_start_matches('\u{feff}').trim();
        place = Place { byte: place.byte + length, line: place.line + 1 };
        if body.is_empty() {
            continue;
        }
        let line = place.line;
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(body).map_err(|e| format!("line {line}: it is not one JSON object: {e}"))?;
        let values = object.into_iter().map(|(column, json)| from_json(json).map(|value| (column, value)));
        records.push(Record { line, values: values.collect::<Result<_, _>>().map_err(|why| format!("line {line}: {why}"))? });
    }
    Ok((records, place))
}

fn csv(text: &str, place: Place, most: u32) -> Result<(Vec<Record>, Place), String> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let say = |e: csv::Error| e.to_string();
    let header = reader.byte_headers().map_err(say)?.clone();
    let columns: Vec<String> = header.iter().map(|c| String::from_utf8_lossy(c).trim_start_matches('\u{feff}').trim().to_owned()).collect();
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
    columns: &[String],
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
        records.push(Record { line, values: columns.iter().cloned().zip(row.iter().map(value)).collect() });
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
            assert_eq!(
                one.iter().map(|r| r.values[1].1.clone()).collect::<Vec<_>>(),
                other.iter().map(|r| r.values[1].1.clone()).collect::<Vec<_>>()
            );
            assert_eq!(one.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 3, 4]);
            assert_eq!(other.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 4, 5], "step {step}");
        }
        assert_eq!((count(Form::Ndjson, ndjson), Form::of("Cards.JSONL"), Form::of("cards")), (3, Some(Form::Ndjson), None));
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        let error = |form, text| read(form, text, Place::default(), 10).unwrap_err();
        assert!(error(Form::Ndjson, "{\"a\":1}\n[1]").starts_with("line 2"));
        assert!(error(Form::Ndjson, "{\"a\":{\"$blob\":\"x\"}}").starts_with("line 1"));
        assert!(error(Form::Csv, "a,b\n1,2\n3").contains('3'));
    }
}
