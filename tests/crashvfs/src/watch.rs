//! Sees statements that write outside a transaction: each of them would be committed alone.

use std::{
    ffi::{CStr, c_int, c_uint, c_void},
    ptr,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, ffi};

/// The statements of one connection that wrote outside a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Watch(&'static Mutex<Vec<String>>);

impl Watch {
    /// Begins. The connection's trace hook is taken for it, and a few bytes of memory for good, since nobody knows how long
    /// the connection lives.
    pub fn on(connection: &Connection) -> Self {
        let found = Box::leak(Box::new(Mutex::default()));
        // SAFETY: the handle is live, and the context lives for ever.
        unsafe {
            ffi::sqlite3_trace_v2(connection.handle(), ffi::SQLITE_TRACE_STMT as c_uint, Some(seen), ptr::from_ref(found).cast_mut().cast());
        }
        Self(found)
    }

    /// What was found so far.
    pub fn found(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a statement may do when no transaction is open: begin one, or set up the connection.
const MAY: [&str; 3] = ["BEGIN", "SAVEPOINT", "PRAGMA"];

/// What ends a transaction. A full-text table writes what it holds back while that runs, when the transaction counts as
/// ended already.
const ENDS: [&str; 3] = ["COMMIT", "END", "RELEASE"];

unsafe extern "C" fn seen(_: c_uint, context: *mut c_void, statement: *mut c_void, _: *mut c_void) -> c_int {
    // SAFETY: SQLite hands back the context of `Watch::on` and a live statement.
    unsafe {
        let statement = statement.cast::<ffi::sqlite3_stmt>();
        let connection = ffi::sqlite3_db_handle(statement);
        let writes_alone = ffi::sqlite3_get_autocommit(connection) != 0 && ffi::sqlite3_stmt_readonly(statement) == 0;
        if writes_alone && !begins(&text(statement), &MAY) && !ends_a_transaction(connection) {
            (*context.cast::<Mutex<Vec<String>>>()).lock().unwrap_or_else(PoisonError::into_inner).push(text(statement));
        }
    }
    0
}

/// Whether a statement is running that ends a transaction.
///
/// # Safety
/// The connection is live, and this is one of its callbacks.
unsafe fn ends_a_transaction(connection: *mut ffi::sqlite3) -> bool {
    // SAFETY: as the caller promises; nothing is finalised in between.
    unsafe {
        let mut statement = ffi::sqlite3_next_stmt(connection, ptr::null_mut());
        while !statement.is_null() {
            if ffi::sqlite3_stmt_busy(statement) != 0 && begins(&text(statement), &ENDS) {
                return true;
            }
            statement = ffi::sqlite3_next_stmt(connection, statement);
        }
    }
    false
}

/// # Safety
/// The statement is live.
unsafe fn text(statement: *mut ffi::sqlite3_stmt) -> String {
    // SAFETY: as the caller promises; the text lives as long as the statement.
    unsafe {
        let sql = ffi::sqlite3_sql(statement);
        if sql.is_null() { String::new() } else { CStr::from_ptr(sql).to_string_lossy().trim_start().to_owned() }
    }
}

fn begins(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_seen_outside_a_transaction_and_not_inside() {
        let connection = Connection::open_in_memory().unwrap();
        let watch = Watch::on(&connection);
        connection
            .execute_batch("BEGIN IMMEDIATE; CREATE TABLE a(x); INSERT INTO a VALUES (1); COMMIT; SELECT * FROM a; PRAGMA user_version = 1")
            .unwrap();
        connection.execute_batch("BEGIN; CREATE VIRTUAL TABLE f USING fts5(t); INSERT INTO f VALUES ('held back until COMMIT'); COMMIT").unwrap();
        assert_eq!(watch.found(), Vec::<String>::new());
        connection.execute_batch("INSERT INTO a VALUES (2)").unwrap();
        assert_eq!(watch.found(), ["INSERT INTO a VALUES (2)"]);
    }
}
