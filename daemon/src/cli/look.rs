//! How text for people is laid out: colour, width, time. Pure: what the terminal and the clock say comes in as values.

use chrono::{DateTime, FixedOffset, Local, TimeZone, Utc};
use whimbrel_shared::{protocol::state::Severity, status::Status};

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

    /// Text from elsewhere without what could move the cursor, its further lines indented by `by`.
    pub fn indented(&self, text: &str, by: usize) -> String {
        clean(text.trim_end()).replace('\n', &format!("\n{}", " ".repeat(by)))
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

/// A table with a heading. The last column may be as long as it likes; others are padded. When the whole is wider than
/// the terminal, the widest cells of the first column lose their beginnings (paths end in what tells them apart).
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
struct Cell {
    text: String,
    painted: Option<String>,
}

impl Table {
    /// With these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.iter().map(|h| Cell { text: (*h).to_owned(), painted: None }).collect()] }
    }

    /// Adds a row. A cell may be painted: its plain text, and the same in colour.
    pub fn row<const N: usize>(&mut self, cells: [(String, Option<String>); N]) {
        self.rows.push(cells.into_iter().map(|(text, painted)| Cell { text: clean(&text).replace(['\n', '\t'], " "), painted }).collect());
    }

    /// The lines, without line ends; the heading first.
    pub fn lines(mut self, look: &Look) -> Vec<String> {
        let columns = self.rows[0].len();
        let widest = |rows: &[Vec<Cell>], i: usize| rows.iter().map(|r| r[i].text.chars().count()).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..columns).map(|i| widest(&self.rows, i)).collect();
        if let Some(width) = look.width {
            let rest: usize = widths[1..].iter().map(|w| w + 2).sum();
            let room = width.saturating_sub(rest).max(16);
            if widths[0] > room {
                for row in &mut self.rows {
                    row[0].text = shortened(&row[0].text, room);
                }
                widths[0] = widest(&self.rows, 0);
            }
        }
        let mut lines = Vec::with_capacity(self.rows.len());
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                line.push_str(match &cell.painted {
                    Some(painted) => painted,
                    None => &cell.text,
                });
                if i + 1 < columns {
                    line.push_str(&" ".repeat(widths[i] + 2 - cell.text.chars().count()));
                }
            }
            let line = line.trim_end().to_owned();
            lines.push(if number == 0 { look.dim(&line) } else { line });
        }
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
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\r\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\n");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_beginning_of_paths_and_nothing_else() {
        let mut table = Table::new(["DATABASE", "STATUS"]);
        table.row([cell("/var/lib/application/of/a/person/notes.db"), cell("completed")]);
        table.row([cell("a.db"), cell("failed")]);
        let narrow = Look { width: Some(32), ..Look::plain(0) };
        let expected = ["DATABASE               STATUS", "…of/a/person/notes.db  completed", "a.db                   failed"];
        assert_eq!(table.clone().lines(&narrow), expected);
        assert!(table.lines(&Look::plain(0))[1].starts_with("/var/lib/application/of/a/person/notes.db  completed"));
    }
}
