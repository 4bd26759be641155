//! Keeps the journal of a file folded and its sweeps going, in transactions so short that the application does not notice
//! (invariant 9): at each look, online or not, and before a migration, whose own transaction then has little left to fold.

use std::time::{Duration, Instant};

use super::{
    connection::Managed,
    error::ApplyError,
    gap::Gap,
    transaction::{Terms, write},
};
use crate::{
    ambient::Ambient,
    store::journal,
    sync::{
        boot::Timeline,
        fold::{Origin, fold},
        sweep::{mark_routine, sweep},
    },
};

/// What a transaction is sized for. It is never to hold the write lock for more than 20 ms, on a disk ten times as slow as
/// the one that was measured.
const AIM: Duration = Duration::from_millis(5);
/// Notes of the first transaction: 2 ms.
const FIRST: u64 = 250;
/// Most notes, or rows of a sweep, in one.
const MOST: u64 = 8_192;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Whether there is more to do: the budget was used up.
    pub more: bool,
    /// The longest that the write lock was held.
    pub longest_hold: Duration,
    /// Transactions.
    pub bites: u32,
}

/// Whether a file that captures has nothing to fold and nothing to sweep. Only reads, and little.
pub fn is_tended(file: &Managed, ambient: &Ambient) -> Result<bool, ApplyError> {
    let folded = journal::extent(&file.connection)?.is_folded() && journal::sweeps(&file.connection, &|_| None)?.is_empty();
    // A clock that was set has to be noted before the application writes again.
    Ok(folded && !Timeline::was_set(&file.connection, &ambient.boot())?)
}

/// Folds and sweeps until nothing is left, or for as long as `budget`. `routine`: tables that have to be looked through
/// from time to time are. What cannot be read yet is left for the next time.
pub fn tend(file: &mut Managed, ambient: &Ambient, wait: Duration, budget: Duration, routine: bool) -> Result<Tended, ApplyError> {
    let (begun, mut gap, mut notes, mut routine) = (Instant::now(), Gap::for_chunks(), FIRST, routine);
    let mut done = Tended::default();
    while routine || !is_tended(file, ambient)? {
        if file.guard.halt().no_more() {
            return Err(ApplyError::Cancelled);
        }
        if begun.elapsed() >= budget {
            done.more = true;
            break;
        }
        let now_ms = ambient.now_ms();
        let (left, held) = write(file, Terms::ours(wait), |file| {
            if routine {
                mark_routine(&file.connection, now_ms)?;
            }
            let folded = fold(&file.connection, &ambient.boot(), Origin::App, now_ms, Some(notes))?;
            if folded.more {
                return Ok(true);
            }
            Ok(sweep(&file.connection, usize::try_from(notes).unwrap_or(1))?.more)
        })?;
        routine = false;
        done.bites += 1;
        done.longest_hold = done.longest_hold.max(held);
        // Twice as many at the most, so that one quick transaction does not make the next one long.
        let share = AIM.as_secs_f64() / held.as_secs_f64().max(0.000_1);
        notes = ((notes as f64 * share.clamp(0.1, 2.0)) as u64).clamp(50, MOST);
        if !left {
            // What is marked still cannot be read.
            break;
        }
        gap.leave(file, held)?;
    }
    Ok(done)
}
