//! Where a file stands with its space (`_whimbrel_exchange`), and the newest clocks that it knew when (`_whimbrel_clock`).
//! Every function runs inside the caller's transaction.

use rusqlite::{Connection, OptionalExtension, params};
use whimbrel_shared::{
    hlc::Clock,
    protocol::push::{Reached, Series},
};

use super::{StoreError, at, in_flight};

/// Clocks that are kept while old edits wait. Beyond it the oldest go: an edit from before then gets the clock of its own
/// time, which may be earlier than one it saw, and never later than it should be.
const MOST_CLOCKS: u32 = 1_024;

/// Where a file stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The schema's version for which everything up to the cursor was told; 0: none yet.
    pub version: u32,
    /// What cursor and versions count in; none before the first answer.
    pub series: Option<Series>,
    /// How far rows have landed or are in quarantine.
    pub cursor: u64,
    /// The highest version that an answer to a push gave, and that is recorded.
    pub acked: u64,
    /// The order of the last push.
    pub pushes: u64,
    /// The order of the last one whose answer was settled as a whole.
    pub answered: u64,
    /// Whether the next walk has to tell what this file wrote, too: something that waited landed under it.
    pub tell_again: bool,
    /// Whether everything is being told anew.
    pub anew: bool,
    /// Deletions up to this version are forgotten here, as they are at the server.
    pub horizon: u64,
    /// What has to be done to all that is known of rows before anything lands.
    pub marking: Option<Marking>,
    /// What versions counted in before that.
    pub was: Option<Series>,
    /// The walk for what a newer version of the schema knows and an older one did not.
    pub walk: Option<Walk>,
    /// When rows were last exchanged, in milliseconds since 1970.
    pub exchanged_ms: Option<i64>,
    /// The highest number that the file was ever told or given: by it a restored server is known.
    pub reached: Option<Reached>,
}

impl Exchange {
    /// The file was told, or was given, a number.
    pub fn reach(&mut self, series: Series, number: u64) {
        let now = Reached { series, number };
        // Numbers of another space come after all of the one before.
        if self.reached.is_none_or(|before| before.series.space != series.space || before < now) {
            self.reached = Some(now);
        }
    }
}

/// What is done to all that is known of rows, some at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// Of each it is to be seen whether the server tells it.
    Untold,
    /// Versions count in another series: none that is known means anything there.
    NoSeries,
}

impl Marking {
    const ALL: [(Self, i64); 2] = [(Self::Untold, 1), (Self::NoSeries, 2)];
}

/// A walk through everything up to a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The schema's version before.
    pub since: u32,
    /// Where it ends.
    pub until: u64,
    /// How far it has come.
    pub at: u64,
}

/// Where the file stands.
pub fn read(connection: &Connection) -> Result<Exchange, StoreError> {
    connection
        .prepare_cached(
            "SELECT series, cursor, acked, pushes, tell_again, since, until, walked, exchanged_ms, version, anew, was, answered, marking, horizon,
                    reached
             FROM main._whimbrel_exchange WHERE one = 1",
        )
        .and_then(|mut s| {
            s.query_row([], |row| {
                let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
                let (since, until): (Option<u32>, Option<i64>) = (row.get(5)?, row.get(6)?);
                let (at, marking) = (number(7)?, row.get::<_, i64>(13)?);
                Ok(Exchange {
                    // What is no series counts in none: everything is told anew.
                    series: row.get::<_, Option<String>>(0)?.and_then(|text| text.parse().ok()),
                    cursor: number(1)?,
                    acked: number(2)?,
                    pushes: number(3)?,
                    answered: number(12)?,
                    horizon: number(14)?,
                    tell_again: row.get(4)?,
                    walk: since.zip(until).map(|(since, until)| Walk { since, until: until.cast_unsigned(), at }),
                    exchanged_ms: row.get(8)?,
                    version: row.get(9)?,
                    anew: row.get(10)?,
                    marking: Marking::ALL.iter().find(|(_, number)| *number == marking).map(|(marking, _)| *marking),
                    was: row.get::<_, Option<String>>(11)?.and_then(|text| text.parse().ok()),
                    reached: row.get::<_, Option<String>>(15)?.and_then(|text| text.parse().ok()),
                })
            })
            .optional()
        })
        .map(Option::unwrap_or_default)
        .map_err(at("reading where the exchange of rows stands"))
}

/// Writes where it stands, if that is not what is written there.
pub fn write(connection: &Connection, to: &Exchange) -> Result<(), StoreError> {
    if read(connection)? == *to {
        return Ok(());
    }
    let number = |n: u64| n.cast_signed();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_exchange
             (one, series, cursor, acked, pushes, tell_again, since, until, walked, exchanged_ms, version, anew, was, answered, marking, horizon,
              reached)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )
        .and_then(|mut s| {
            s.execute(params![
                to.series.map(|s| s.to_string()),
                number(to.cursor),
                number(to.acked),
                number(to.pushes),
                to.tell_again,
                to.walk.map(|w| w.since),
                to.walk.map(|w| number(w.until)),
                number(to.walk.map_or(0, |w| w.at)),
                to.exchanged_ms,
                to.version,
                to.anew,
                to.was.map(|s| s.to_string()),
                number(to.answered),
                Marking::ALL.iter().find(|(marking, _)| to.marking == Some(*marking)).map_or(0, |(_, number)| *number),
                number(to.horizon),
                to.reached.map(|r| r.to_string()),
            ])
        })
        .map(|_| ())
        .map_err(at("writing where the exchange of rows stands"))
}

/// The newest clock that was known before the edit with number `seq`.
pub fn newest_before(connection: &Connection, seq: i64) -> Result<Clock, StoreError> {
    clock(connection, "SELECT newest FROM main._whimbrel_clock WHERE seq < ?1 ORDER BY seq DESC LIMIT 1", seq)
}

/// The newest clock that is known.
pub fn newest(connection: &Connection) -> Result<Clock, StoreError> {
    newest_before(connection, i64::MAX)
}

fn clock(connection: &Connection, sql: &str, seq: i64) -> Result<Clock, StoreError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([seq], |row| row.get::<_, i64>(0)).optional())
        .map(|bits| bits.and_then(|bits| Clock::from_bits(bits.cast_unsigned())).unwrap_or_default())
        .map_err(at("reading the newest clock"))
}

/// Edits after number `seq` are later than `newest`. `oldest`: the number of the oldest edit that has no clock yet; what
/// only older ones would ask for is forgotten.
pub fn advance_clock(connection: &Connection, seq: i64, newest: Clock, oldest: Option<i64>) -> Result<(), StoreError> {
    if self::newest(connection)? >= newest {
        return Ok(());
    }
    let doing = "writing the newest clock";
    connection
        .prepare_cached("INSERT OR REPLACE INTO main._whimbrel_clock (seq, newest) VALUES (?1, ?2)")
        .and_then(|mut s| s.execute(params![seq, newest.bits().cast_signed()]))
        .map_err(at(doing))?;
    connection
        .prepare_cached(
            "DELETE FROM main._whimbrel_clock WHERE seq < (SELECT max(seq) FROM main._whimbrel_clock WHERE seq < ?1)
             OR seq < (SELECT seq FROM main._whimbrel_clock ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        )
        .and_then(|mut s| s.execute(params![oldest.unwrap_or(i64::MAX), MOST_CLOCKS]))
        .map(|_| ())
        .map_err(at(doing))
}

/// The file is told everything anew: it begins at the beginning, once what is known is marked ([`super::known::mark`]). What the server had
/// stays known, and what is unsent stays as it is.
pub fn begin_anew(connection: &Connection) -> Result<(), StoreError> {
    let before = read(connection)?;
    let Exchange { version, pushes, answered, exchanged_ms, reached, .. } = before;
    let was = before.series.or(before.was);
    let marking = Some(Marking::Untold);
    let stands = Exchange { version, pushes, answered, exchanged_ms, reached, tell_again: true, anew: true, marking, was, ..Exchange::default() };
    write(connection, &stands)?;
    in_flight::forget(connection)?;
    connection.execute("DELETE FROM main._whimbrel_quarantine", []).map(|_| ()).map_err(at("beginning anew with the server"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal;

    #[test]
    fn an_edit_is_later_than_what_was_known_before_it_and_no_later() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        assert_eq!(newest_before(&connection, 10).unwrap(), Clock::ZERO);
        let clock = |ms| Clock::at_ms(ms);
        advance_clock(&connection, 5, clock(100), Some(3)).unwrap();
        advance_clock(&connection, 9, clock(900), Some(3)).unwrap();
        advance_clock(&connection, 12, clock(200), Some(3)).unwrap();
        let before = |seq| newest_before(&connection, seq).unwrap();
        assert_eq!((before(5), before(6), before(9), before(10)), (Clock::ZERO, clock(100), clock(100), clock(900)));
        assert_eq!(newest(&connection).unwrap(), clock(900));
        // The oldest edit that waits is number 10.
        advance_clock(&connection, 20, clock(1_000), Some(10)).unwrap();
        assert_eq!((before(9), before(10), before(21)), (Clock::ZERO, clock(900), clock(1_000)));
    }

    #[test]
    fn how_far_a_file_came_only_grows_until_it_is_in_another_space() {
        let series = |space, epoch| Series { space, epoch };
        let mut at = Exchange::default();
        let mut reach = |series, number| {
            at.reach(series, number);
            at.reached.unwrap().to_string()
        };
        assert_eq!(reach(series(3, 1), 7), "3.1.7");
        assert_eq!(reach(series(3, 1), 5), "3.1.7");
        assert_eq!(reach(series(3, 2), 2), "3.2.2");
        assert_eq!(reach(series(3, 1), 9), "3.2.2");
        assert_eq!(reach(series(2, 1), 1), "2.1.1");
    }

    #[test]
    fn where_a_file_stands_comes_back_as_it_was_written() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        assert_eq!(read(&connection).unwrap(), Exchange::default());
        let series = Some(Series { space: 3, epoch: 1 });
        let walk = Some(Walk { since: 2, until: 40, at: 7 });
        let at = Exchange {
            version: 3,
            series,
            cursor: 40,
            acked: 39,
            pushes: 4,
            answered: 3,
            tell_again: true,
            anew: false,
            was: None,
            horizon: 6,
            marking: Some(Marking::NoSeries),
            walk,
            exchanged_ms: Some(5),
            reached: series.map(|series| Reached { series, number: 41 }),
        };
        write(&connection, &at).unwrap();
        assert_eq!(read(&connection).unwrap(), at);
        begin_anew(&connection).unwrap();
        let anew = Exchange {
            version: 3,
            pushes: 4,
            answered: 3,
            tell_again: true,
            anew: true,
            marking: Some(Marking::Untold),
            was: series,
            exchanged_ms: Some(5),
            reached: at.reached,
            ..Exchange::default()
        };
        assert_eq!(read(&connection).unwrap(), anew);
    }
}
