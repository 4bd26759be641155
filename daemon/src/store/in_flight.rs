//! The push that was sent last, as it was sent, until its answer is settled (`_whimbrel_push`): whoever gets no answer sends
//! the same bytes again, so that a write stays the one write that it was. Every function runs inside the caller's transaction.

use rusqlite::Connection;

use super::{StoreError, at};

/// Most bytes in one row of the table: what one short transaction writes.
pub const PIECE: usize = 256 * 1024;

/// So often the server may find a push unreadable before it counts as one that will never be taken. It is not given up at
/// once: what was damaged on the way once may have arrived whole before.
const MOST_REFUSALS: u32 = 10;

/// Puts one piece at its place. The first takes the place of whatever was there.
pub fn put(connection: &Connection, piece: usize, bytes: &[u8]) -> Result<(), StoreError> {
    if piece == 0 {
        forget(connection)?;
    }
    connection
        .prepare_cached("INSERT INTO main._whimbrel_push (piece, body) VALUES (?1, ?2)")
        .and_then(|mut s| s.execute((i64::try_from(piece).unwrap_or(i64::MAX), bytes)))
        .map(|_| ())
        .map_err(at("keeping a push until it is answered"))
}

/// The bytes of the last push; empty: it was answered.
pub fn read(connection: &Connection) -> Result<Vec<u8>, StoreError> {
    let doing = at("reading the push that was not answered");
    let mut statement = connection.prepare_cached("SELECT body FROM main._whimbrel_push ORDER BY piece").map_err(doing)?;
    let pieces = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    pieces.map(|pieces| pieces.concat()).map_err(at("reading the push that was not answered"))
}

/// The server could not read it. Whoever has said so too often gets what waits in another push.
pub fn refused(connection: &Connection) -> Result<(), StoreError> {
    connection
        .execute_batch(&format!(
            "UPDATE main._whimbrel_push SET refused = refused + 1;
             DELETE FROM main._whimbrel_push WHERE (SELECT max(refused) FROM main._whimbrel_push) >= {MOST_REFUSALS}"
        ))
        .map_err(at("counting refusals of a push"))
}

/// It was answered, or what it says counts for nothing any more.
pub fn forget(connection: &Connection) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_push")
        .and_then(|mut s| s.execute([]))
        .map(|_| ())
        .map_err(at("forgetting the push that was answered"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal;

    #[test]
    fn a_push_comes_back_as_it_was_sent_and_the_next_takes_its_place() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        assert!(read(&connection).unwrap().is_empty());
        for (piece, bytes) in [b"one ".as_slice(), b"push", b""].into_iter().enumerate() {
            put(&connection, piece, bytes).unwrap();
        }
        assert_eq!(read(&connection).unwrap(), b"one push");
        put(&connection, 0, b"another").unwrap();
        assert_eq!(read(&connection).unwrap(), b"another");
        forget(&connection).unwrap();
        assert!(read(&connection).unwrap().is_empty());
    }

    #[test]
    fn a_push_that_the_server_can_never_read_does_not_stand_in_the_way_for_good() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        for (piece, bytes) in [b"one ".as_slice(), b"push"].into_iter().enumerate() {
            put(&connection, piece, bytes).unwrap();
        }
        for refusals in 1..=MOST_REFUSALS {
            assert_eq!(read(&connection).unwrap(), b"one push", "after {} refusals", refusals - 1);
            refused(&connection).unwrap();
        }
        assert!(read(&connection).unwrap().is_empty());
    }
}
