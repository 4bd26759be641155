//! A file moves to another version, by the daemon's own engine: what waits is sent first, perhaps; the application writes up
//! to the last moment; the process dies whenever it looks at the clock.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use whimbrel::{
    ambient::Ambient,
    migrate::{
        apply::{self, Job, Policy},
        connection::{Managed, Missing},
        halt::Halt,
        live::Live,
        recover,
    },
    store::managed,
    sync::boot::Boot,
};
use whimbrel_shared::status::{AskedBy, Operation};

use super::{
    app::Place,
    check,
    net::{Shared, lock},
    schema::tables,
    world::{PATIENCE, Purpose, World},
};

/// A file is migrated however often it died in it.
pub const POLICY: Policy = Policy { max_attempts: 0, grouping: true, wait_for_app: PATIENCE, report_values: false, skip_verify: false };

/// A process that died.
struct Died;

/// The boot of a file's machine, and its clock.
pub fn boot(shared: &Shared, file: usize) -> Boot {
    let side = lock(&shared.sides[file]);
    Boot { id: format!("f{file} boot {}", side.boot.0), began_ms: side.boot.1 + side.skew_ms }
}

/// Clock, dice and boot of a process that may die whenever it looks at the clock.
fn mortal(shared: &Arc<Shared>, file: usize) -> Ambient {
    let (clock, dice, booted) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let now = move || {
        if clock.goes_wrong(clock.faults.killed) {
            // Without the message of a panic: it is meant.
            resume_unwind(Box::new(Died));
        }
        clock.wall_ms(file)
    };
    Ambient::new(now, move || lock(&dice.rng).u128(..)).on_boot(move |_| boot(&booted, file))
}

/// What of `before` is in a file at version `to`, and where. What is nowhere there lost its column.
fn carried(before: &BTreeSet<Place>, (from, to): (u32, u32)) -> BTreeSet<Place> {
    let known: BTreeSet<_> = tables(from).iter().flat_map(|t| t.holds.iter().map(|c| (t.is, c.is)).collect::<Vec<_>>()).collect();
    let mut after = BTreeSet::new();
    for table in tables(to) {
        for column in &table.holds {
            let source = if known.contains(&(table.is, column.is)) { Some(column.is) } else { column.was };
            let there = before.iter().filter(|place| place.0 == table.is && Some(place.1) == source);
            after.extend(there.map(|(is, _, key, token)| (*is, column.is, key.clone(), *token)));
        }
    }
    after
}

impl World {
    /// The publisher publishes the next version.
    pub fn publish(&self) {
        let version = self.published.get() + 1;
        self.count("published");
        self.publish_up_to(version);
        self.shared.tell(|| format!("version {version} is published"));
    }

    /// A file moves to a later version that is published, or stays where it is.
    pub fn migrate(&self, file: usize, to: u32) -> Result<(), String> {
        let from = lock(&self.shared.sides[file]).version();
        if from >= to {
            return Ok(());
        }
        self.files[file].busy.set(true);
        if self.shared.roll(2) == 0 {
            let _ = self.exchanged(file, 0, Purpose::Drain);
        }
        let moved = self.migrated(file, (from, to));
        self.files[file].busy.set(false);
        moved
    }

    fn migrated(&self, file: usize, (from, to): (u32, u32)) -> Result<(), String> {
        let (shared, stage) = (&self.shared, self.stage);
        shared.tell(|| format!("f{file} migrates from {from} to {to}"));
        check::keep_of(self, file);
        let before = RefCell::new((from, lock(&shared.sides[file]).places()));
        let ambient = mortal(shared, file);
        let load = |version: u32, _: u32| {
            self.passed(file, &mut before.borrow_mut());
            // The last moment in which somebody else may write.
            if shared.comes_between(shared.faults.written) {
                shared.write(file);
                before.borrow_mut().1 = lock(&shared.sides[file]).places();
            }
            stage.load(version)
        };
        let work = || {
            let mut open = Managed::open(&self.files[file].path, Missing::Refuse, PATIENCE, Halt::default()).expect("the file opens");
            let identity = managed::identity(&open.connection).expect("an identity");
            recover::recover(&mut open, &identity, &stage.chain, &ambient, POLICY, false).expect("what died is taken up");
            let job = Job {
                identity: &identity,
                chain: &stage.chain,
                load: &load,
                operation: Operation::Apply,
                from: from + 1,
                to,
                by: AskedBy::Plan,
                policy: POLICY,
                ambient: &ambient,
                live: &Live::default(),
            };
            apply::run(&mut open, &job).stopped
        };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(None) => self.count("migrated"),
            Ok(Some(stopped)) => return Err(format!("f{file} cannot migrate to {}: {:?}", stopped.version, stopped.failure)),
            Err(died) if died.is::<Died>() => self.count("died in a migration"),
            Err(panic) => resume_unwind(panic),
        }
        self.passed(file, &mut before.borrow_mut());
        Ok(())
    }

    /// A file was at a version with these tokens: looks where it is now, and whether each of them went where it had to.
    fn passed(&self, file: usize, (from, before): &mut (u32, BTreeSet<Place>)) {
        let (now, after) = {
            let mut side = lock(&self.shared.sides[file]);
            let app = side.app.as_mut().expect("it is open");
            app.look();
            (app.version, app.places())
        };
        if now > *from {
            self.shared.tell(|| format!("f{file} is at {now}"));
            check::keep_of(self, file);
            check::refers(self, file);
        }
        let mut ledger = lock(&self.shared.ledger);
        let wanted = carried(before, (*from, now));
        if wanted != after {
            let only = |a: &BTreeSet<Place>, b: &BTreeSet<Place>| a.difference(b).cloned().collect::<Vec<_>>();
            ledger.wrong.push(format!("f{file} from {from} to {now}: lost {:?}, made {:?}", only(&wanted, &after), only(&after, &wanted)));
        }
        let stays: BTreeSet<u32> = after.iter().map(|place| place.3).collect();
        for (table, column, key, token) in before.iter().filter(|place| !stays.contains(&place.3)) {
            self.count("went with its column");
            // Nobody has it but the server, unless it was never sent.
            if ledger.taken.contains(token) || ledger.kept.contains(token) || ledger.given_up.contains(token) {
                ledger.gone.insert(*token);
            } else {
                ledger.wrong.push(format!("t{token} of {table}.{column} {key} went with its column in f{file}, unsent and not archived"));
            }
        }
        (*from, *before) = (now, after);
    }
}
