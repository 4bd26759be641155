//! How text for people is laid out: colour, width, time. Pure: what the terminal and the clock say comes in as values.

use chrono::{DateTime, FixedOffset, Local, TimeZone, Utc};
use whimbrel_shared::{protocol::state::Severity, remedy::Remedy, status::Status};

/// Columns that text gets however narrow the terminal is.
const NARROWEST: usize = 24;

/// What the terminal can and what time it is.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether to use colour.
    pub color: bool,
    /// Columns; none when nothing has to be cut.
    pub width: Option<usize>,
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
    /// Whether times are shown as the device's clock shows them, else in UTC.
    pub local: bool,
}

impl Look {
    /// No colour, no width, UTC.
    pub fn plain(now_ms: i64) -> Self {
        Self { color: false, width: None, now_ms, local: false }
    }

    /// Bold.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Less important.
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Bad.
    pub fn red(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// A status in its colour.
    pub fn status(&self, status: Status) -> String {
        let code = match status {
            Status::Failed => "1;31",
            Status::Pending => "33",
            Status::Running => "36",
            Status::Completed | Status::Skipped => "32",
            Status::Reverted => "35",
        };
        self.paint(code, status.as_str())
    }

    /// A word in the colour of how bad it is.
    pub fn severity(&self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Info => self.paint("36", text),
            Severity::Warning => self.paint("33", text),
            Severity::Error => self.red(text),
        }
    }

    /// `label text`, `margin` columns from the left, what follows the first line hanging below the text's beginning. The text
    /// may come from elsewhere. `painted` is the label in colour.
    pub fn labelled(&self, margin: usize, label: &str, painted: &str, text: &str) -> String {
        let by = margin + label.chars().count() + 1;
        format!("{}{painted} {}", " ".repeat(margin), self.flowed(text, by))
    }

    /// A remedy, as everywhere.
    pub fn remedy(&self, margin: usize, remedy: &Remedy) -> String {
        self.labelled(margin, "remedy:", &self.bold("remedy:"), &remedy.sentence())
    }

    /// Text from elsewhere, broken at blanks where the terminal ends, `by` columns from the left but for its beginning. Lines
    /// that begin with a blank are pictures, such as an excerpt with its caret, and stay as they are.
    pub fn flowed(&self, text: &str, by: usize) -> String {
        let room = self.width.map_or(usize::MAX, |w| w.saturating_sub(by).max(NARROWEST));
        let mut lines = Vec::new();
        for line in clean(text.trim_end()).lines() {
            if line.starts_with([' ', '\t']) {
                lines.push(line.to_owned());
            } else {
                lines.extend(filled(line.split(' ').map(|w| (w.chars().count(), w.to_owned())), " ", room));
            }
        }
        lines.join(&format!("\n{}", " ".repeat(by)))
    }

    /// Parts with commas between them, broken between parts where the terminal ends. A part is its plain text and the same
    /// in colour.
    pub fn listed(&self, parts: &[(String, Option<String>)], by: usize) -> String {
        let room = self.width.map_or(usize::MAX, |w| w.saturating_sub(by).max(NARROWEST));
        let last = parts.len().saturating_sub(1);
        let with_commas = parts.iter().enumerate().map(|(i, (plain, painted))| {
            let comma = if i < last { "," } else { "" };
            (plain.chars().count() + comma.len(), format!("{}{comma}", painted.as_ref().unwrap_or(plain)))
        });
        filled(with_commas, " ", room).join(&format!("\n{}", " ".repeat(by)))
    }

    /// A moment: `2026-11-03 14:05:09`.
    pub fn moment(&self, at_ms: i64) -> String {
        self.zoned(at_ms).map_or_else(|| "?".to_owned(), |t| t.format("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// A moment of today: `14:05:09`.
    pub fn time_of_day(&self, at_ms: i64) -> String {
        self.zoned(at_ms).map_or_else(|| "?".to_owned(), |t| t.format("%H:%M:%S").to_string())
    }

    /// How long ago: `12 s ago`. What lies ahead by the clock is `just now`: clocks differ.
    pub fn ago(&self, at_ms: i64) -> String {
        match self.now_ms.saturating_sub(at_ms) {
            ..1_000 => "just now".to_owned(),
            ms => format!("{} ago", length(ms.unsigned_abs())),
        }
    }

    /// How soon: `in 4 min`.
    pub fn until(&self, at_ms: i64) -> String {
        match at_ms.saturating_sub(self.now_ms) {
            ..=0 => "now".to_owned(),
            ms => format!("in {}", length(ms.unsigned_abs())),
        }
    }

    fn zoned(&self, at_ms: i64) -> Option<DateTime<FixedOffset>> {
        let utc = Utc.timestamp_millis_opt(at_ms).single()?;
        Some(if self.local { utc.with_timezone(&Local).fixed_offset() } else { utc.fixed_offset() })
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// As many words on a line as fit. A word is how many columns it takes, and its text.
fn filled(words: impl Iterator<Item = (usize, String)>, between: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (columns, word) in words {
        match lines.last_mut() {
            Some((used, line)) if *used + between.len() + columns <= room => {
                *used += between.len() + columns;
                line.push_str(between);
                line.push_str(&word);
            }
            _ => lines.push((columns, word)),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// A length of time in its one or two largest units: `950 ms`, `12 s`, `3 h 12 min`.
pub fn length(ms: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    match UNITS.iter().position(|(_, size)| ms >= *size) {
        None => format!("{ms} ms"),
        Some(first) => {
            let (unit, size) = UNITS[first];
            let rest = UNITS.get(first + 1).map(|(unit, size)| (unit, ms % UNITS[first].1 / size));
            match rest {
                // 47 min 12 s is no better to know than 47 min
                Some((next, count)) if count > 0 && (ms / size < 10 || unit == "h") => format!("{} {unit} {count} {next}", ms / size),
                _ => format!("{} {unit}", ms / size),
            }
        }
    }
}

/// A size: `512 B`, `1.5 kB`, `2.0 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 migration`, `2 migrations`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Text from elsewhere without control characters but line ends and tabs: an error message or a file name must not drive
/// the terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A table with a heading. The last column flows to the end of the terminal. In a table that may be cut, when the others
/// leave too little room, the first column's cells lose their beginnings: paths end in what tells them apart.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
    cut: bool,
}

#[derive(Clone, Debug)]
struct Cell {
    text: String,
    painted: Option<String>,
}

impl Table {
    /// With these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.iter().map(|h| Cell { text: (*h).to_owned(), painted: None }).collect()], cut: false }
    }

    /// The same, with a first column that may be cut.
    pub fn of_paths<const N: usize>(headings: [&str; N]) -> Self {
        Self { cut: true, ..Self::new(headings) }
    }

    /// Adds a row. A cell may be painted: its plain text, and the same in colour. Only the last may have several lines.
    pub fn row<const N: usize>(&mut self, cells: [(String, Option<String>); N]) {
        self.rows.push(cells.into_iter().map(|(text, painted)| Cell { text: clean(&text), painted }).collect());
    }

    /// The rows as text, without line ends after them; the heading first.
    pub fn lines(mut self, look: &Look) -> Vec<String> {
        let last = self.rows[0].len() - 1;
        for row in &mut self.rows {
            row[..last].iter_mut().for_each(|cell| cell.text = cell.text.replace(['\n', '\t'], " "));
        }
        let widest = |rows: &[Vec<Cell>], i: usize| rows.iter().map(|r| r[i].text.chars().count()).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..last).map(|i| widest(&self.rows, i)).collect();
        if let (true, Some(width)) = (self.cut, look.width) {
            let rest: usize = widths[1..].iter().map(|w| w + 2).sum::<usize>() + 2 + widest(&self.rows, last);
            let room = width.saturating_sub(rest).max(NARROWEST);
            for row in &mut self.rows {
                row[0].text = shortened(&row[0].text, room);
            }
            widths[0] = widest(&self.rows, 0);
        }
        let before_last = widths.iter().map(|w| w + 2).sum();
        let text = |row: &[Cell]| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell.painted.as_ref().unwrap_or(&cell.text));
                line.push_str(&" ".repeat(width + 2 - cell.text.chars().count()));
            }
            line + &look.flowed(&row[last].text, before_last)
        };
        let mut lines: Vec<String> = self.rows.iter().map(|row| text(row).trim_end().to_owned()).collect();
        lines[0] = look.dim(&lines[0]);
        lines
    }
}

/// The end of a text, marked as cut.
fn shortened(text: &str, room: usize) -> String {
    let length = text.chars().count();
    if length <= room { text.to_owned() } else { std::iter::once('…').chain(text.chars().skip(length + 1 - room)).collect() }
}

/// A cell without colour.
pub fn cell(text: impl Into<String>) -> (String, Option<String>) {
    (text.into(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_sizes_read_as_people_say_them() {
        for (ms, expected) in [
            (0, "0 ms"),
            (950, "950 ms"),
            (12_000, "12 s"),
            (61_000, "1 min 1 s"),
            (2_832_000, "47 min"),
            (11_520_000, "3 h 12 min"),
            (90_000_000, "1 d 1 h"),
            (1_000_000_000, "11 d"),
        ] {
            assert_eq!(length(ms), expected);
        }
        for (bytes, expected) in [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (999_990, "1.0 MB"), (2_000_000_000, "2.0 GB")] {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!((count(1, "database"), count(0, "database")), ("1 database".to_owned(), "0 databases".to_owned()));
    }

    #[test]
    fn a_clock_that_differs_never_shows_negative_times() {
        let look = Look::plain(1_000_000);
        assert_eq!((look.ago(1_060_000), look.until(0)), ("just now".to_owned(), "now".to_owned()));
    }

    #[test]
    fn long_text_hangs_below_its_beginning_and_pictures_stay_whole() {
        let narrow = Look { width: Some(40), ..Look::plain(0) };
        let text =
            "no such column: titel, in a statement of this migration\n  UPDATE notes SET slug = titel WHERE a_rather_long_condition\n           ^";
        let expected = "  error: no such column: titel, in a\n         statement of this migration\n           UPDATE notes SET slug = titel WHERE a_rather_long_condition\n                    ^";
        assert_eq!(narrow.labelled(2, "error:", "error:", text), expected);
        assert_eq!(
            narrow.listed(&[cell("one"), cell("two two two two"), cell("three three three")], 8),
            "one, two two two two,\n        three three three"
        );
        assert!(!Look::plain(0).labelled(2, "x", "x", &"word ".repeat(100)).contains('\n'));
    }

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\r\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\n");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_beginning_of_paths_and_nothing_else() {
        let mut table = Table::of_paths(["DATABASE", "STATUS"]);
        table.row([cell("/var/lib/application/of/a/person/notes.db"), cell("completed")]);
        table.row([cell("a.db"), cell("failed")]);
        let narrow = Look { width: Some(35), ..Look::plain(0) };
        let expected = ["DATABASE                  STATUS", "…on/of/a/person/notes.db  completed", "a.db                      failed"];
        assert_eq!(table.clone().lines(&narrow), expected);
        assert!(table.lines(&Look::plain(0))[1].starts_with("/var/lib/application/of/a/person/notes.db  completed"));
    }
}
