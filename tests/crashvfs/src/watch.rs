//! Sees statements that write outside a transaction: each of them would be committed alone.

use std::{
    ffi::{CStr, c_int, c_uint, c_void},
    marker::PhantomData,
    ptr,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, ffi};

/// Watches one connection as long as it lives. The connection's own trace hook is taken for it.
pub struct Watch<'c> {
    connection: *mut ffi::sqlite3,
    found: Box<Mutex<Vec<String>>>,
    of: PhantomData<&'c Connection>,
}

impl<'c> Watch<'c> {
    /// Begins.
    pub fn on(connection: &'c Connection) -> Self {
        let found = Box::new(Mutex::default());
        // SAFETY: the handle lives as long as `'c`; the context lives until `Drop` takes the hook away.
        let connection = unsafe {
            let handle = connection.handle();
            ffi::sqlite3_trace_v2(handle, ffi::SQLITE_TRACE_STMT as c_uint, Some(seen), ptr::from_ref(&*found).cast_mut().cast());
            handle
        };
        Self { connection, found, of: PhantomData }
    }

    /// The statements that wrote outside a transaction, so far.
    pub fn found(&self) -> Vec<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle lives as long as `'c`.
        unsafe { ffi::sqlite3_trace_v2(self.connection, 0, None, ptr::null_mut()) };
    }
}

/// What a statement may do when no transaction is open: begin one, or set up the connection.
const MAY: [&str; 3] = ["BEGIN", "SAVEPOINT", "PRAGMA"];

unsafe extern "C" fn seen(_: c_uint, context: *mut c_void, statement: *mut c_void, _: *mut c_void) -> c_int {
    // SAFETY: SQLite hands back the context of `Watch::on` and a live statement.
    unsafe {
        let statement = statement.cast::<ffi::sqlite3_stmt>();
        let alone = ffi::sqlite3_get_autocommit(ffi::sqlite3_db_handle(statement)) != 0;
        if alone && ffi::sqlite3_stmt_readonly(statement) == 0 {
            let text = CStr::from_ptr(ffi::sqlite3_sql(statement)).to_string_lossy().trim_start().to_owned();
            if !MAY.iter().any(|word| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))) {
                (*context.cast::<Mutex<Vec<String>>>()).lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        }
    }
    0
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
        assert_eq!(watch.found(), Vec::<String>::new());
        connection.execute_batch("INSERT INTO a VALUES (2)").unwrap();
        assert_eq!(watch.found(), ["INSERT INTO a VALUES (2)"]);
    }
}
