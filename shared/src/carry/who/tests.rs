//! Tables of cases: who is who, what is refused, and with which words.

use super::*;
use crate::{ledger::Ledger, manifest::Manifest};

/// `person id,first,last,zip key id`, one table a line, into a shape.
fn shapes(text: &str) -> Vec<Shape> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let list = |text: &str| text.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            Shape { name: words[0].to_owned(), columns: list(words[1]), key: list(words.get(2).unwrap_or(&"id")) }
        })
        .collect()
}

const BEFORE: &str = "person id,first,last,zip\nnotes id,body";

struct Case<'a> {
    after: &'a str,
    carry: &'a str,
    seen: Seen,
    synced: bool,
}

fn case<'a>(after: &'a str, carry: &'a str) -> Case<'a> {
    Case { after, carry, seen: Seen::default(), synced: true }
}

impl Case<'_> {
    fn table(mut self, from: &str, to: &str) -> Self {
        self.seen.tables.insert(from.to_owned(), to.to_owned());
        self
    }
    fn column(mut self, table: &str, from: &str, to: &str) -> Self {
        self.seen.columns.insert((table.to_owned(), from.to_owned()), to.to_owned());
        self
    }
    fn remade(mut self, table: &str, column: &str) -> Self {
        match column {
            "" => self.seen.remade_tables.insert(table.to_owned()),
            column => self.seen.remade_columns.insert((table.to_owned(), column.to_owned())),
        };
        self
    }
    fn not_synced(mut self) -> Self {
        self.synced = false;
        self
    }

    /// The map afterwards in words, or what is wrong.
    fn run(&self) -> Result<String, Vec<CarryError>> {
        let mut ledger = Ledger::default();
        ledger.apply(&ledger.next(&shapes(BEFORE), &Same::default()).unwrap()).unwrap();
        let map = ledger.map();
        let synced = |_: u32| self.synced.then(|| vec![1]);
        let after = shapes(self.after);
        let carry = Manifest::parse(self.carry).unwrap().carry;
        let same = same(Before { map: &map, synced: &synced }, &after, &carry, &self.seen)?;
        ledger.apply(&ledger.next(&after, &same).unwrap()).unwrap();
        let of = |t: &TableColumns| t.columns.iter().map(|c| format!(" {}={}", c.name, c.id)).collect::<String>();
        Ok(ledger.map().tables.iter().map(|t| format!("{}#{}:{}", t.name, t.id, of(t))).collect::<Vec<_>>().join("; "))
    }

    fn is(self, want: &str) {
        let found = self.run().unwrap_or_else(|errors| panic!("{}: {errors:?}", self.carry));
        assert_eq!(found, want, "{}", self.carry);
    }

    fn refused(self, words: &[&str]) {
        let Err(errors) = self.run() else { panic!("{:?} is accepted for {:?}", self.carry, self.after) };
        let said: String = errors.iter().map(|e| format!("{e}; {}\n", e.remedy())).collect();
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
}

// `notes` is #1 and `person` #2: ids are given in the order of names.
const NOTES: &str = "notes id,body";

fn with_notes(person: &str) -> String {
    format!("{NOTES}\n{person}")
}

#[test]
fn ids_follow_what_carry_says() {
    case(&with_notes("people id,given,last,zip"), "[[carry]]\ntable='person'\nto='people'\nrename={first='given'}")
        .is("notes#1: id=1 body=2; people#2: id=1 given=2 last=3 zip=4");
    // A rebuild is known by its name, whatever order its columns have.
    case(&with_notes("person zip,last,first,id"), "").is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3 zip=4");
    case(&with_notes("person id,last,first,zip"), "[[carry]]\ntable='person'\nrename={first='last',last='first'}")
        .is("notes#1: id=1 body=2; person#2: id=1 last=2 first=3 zip=4");
    case(&with_notes("person id,first,last,mail"), "[[carry]]\ntable='person'\ndrop={zip='archive'}")
        .is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3 mail=5");
    // What only goes needs no word.
    case(&with_notes("person id,first,last"), "").is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3");
    case(NOTES, "").is("notes#1: id=1 body=2");
    case(&with_notes("person id,full,zip"), "[[carry]]\ntable='person'\nmerge={full=['first','last']}")
        .is("notes#1: id=1 body=2; person#2: id=1 zip=4 full=5");
    case(&with_notes("person id,first,family,suffix,zip"), "[[carry]]\ntable='person'\nsplit={last=['family','suffix']}")
        .is("notes#1: id=1 body=2; person#2: id=1 first=2 zip=4 family=5 suffix=6");
    case(&with_notes("person uuid,first,last,zip uuid"), "[[carry]]\ntable='person'\nkey={uuid='hex(id)'}\ndrop={id='discard'}")
        .is("notes#1: id=1 body=2; person#2: first=2 last=3 zip=4 uuid=5");
    case(
        &with_notes("person id,first,last\nplace person,zip person"),
        "[[carry]]\ntable='person'\n[carry.into.place]\nkey={person='id'}\ncolumns={zip='zip'}",
    )
    .is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3; place#3: person=1 zip=2");
    case("persons id,first,last,zip\nnotes id,body", "[[carry]]\ntable='person'\ngone='discard'")
        .is("notes#1: id=1 body=2; persons#3: id=1 first=2 last=3 zip=4");
}

#[test]
fn what_is_made_again_under_its_old_name_is_new() {
    case(&with_notes("person id,first,last,zip"), "").remade("person", "zip").is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3 zip=5");
    case(&with_notes("person id,first,last,zip"), "[[carry]]\ntable='person'\ndrop={zip='discard'}")
        .remade("person", "zip")
        .is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3 zip=5");
    case(&with_notes("person id,first,last,zip"), "[[carry]]\ntable='person'\ngone='discard'")
        .remade("person", "")
        .is("notes#1: id=1 body=2; person#3: id=1 first=2 last=3 zip=4");
    // A person's word that it is still the same.
    case(&with_notes("person id,first,last,zip"), "[[carry]]\ntable='person'\nto='person'")
        .remade("person", "")
        .is("notes#1: id=1 body=2; person#2: id=1 first=2 last=3 zip=4");
}

#[test]
fn a_rename_that_was_seen_has_to_be_said_where_rows_are_exchanged() {
    let people = with_notes("people id,first,last,zip");
    case(&people, "").table("person", "people").refused(&["[[carry]]\ntable = \"person\"\nto = \"people\""]);
    case(&people, "").table("person", "people").not_synced().is("notes#1: id=1 body=2; people#2: id=1 first=2 last=3 zip=4");
    let given = with_notes("person id,given,last,zip");
    case(&given, "").column("person", "first", "given").refused(&["table = \"person\"\nrename = { first = \"given\" }"]);
    case(&given, "").column("person", "first", "given").not_synced().is("notes#1: id=1 body=2; person#2: id=1 given=2 last=3 zip=4");
    // The line goes into the entry that is there.
    case(&with_notes("person id,given,last,mail"), "[[carry]]\ntable='person'\ndrop={zip='block'}")
        .column("person", "first", "given")
        .refused(&["(in the [[carry]] of person)\nrename = { first = \"given\" }"]);
    case(&people, "[[carry]]\ntable='person'\nto='notes'").table("person", "people").refused(&["gives notes to another"]);
    case(&given, "[[carry]]\ntable='person'\nrename={first='last'}")
        .column("person", "first", "given")
        .refused(&["becomes last, and a statement renames it to given"]);
    // Renamed aside, and another table in its place: only a person knows.
    case("person id,first,last,zip\nold id,first,last,zip\nnotes id,body", "").table("person", "old").refused(&["to = \"old\"", "to = \"person\""]);
}

#[test]
fn what_could_be_two_things_is_refused_with_both_texts() {
    case(&with_notes("person id,given,last,zip"), "").refused(&["rename = { first = \"given\" }", "drop = { first = \"archive\" }"]);
    case(&with_notes("person id,given,last,zip"), "").not_synced().is("notes#1: id=1 body=2; person#2: id=1 last=3 zip=4 given=5");
    case(&with_notes("people id,first,last,zip"), "").refused(&["to = \"people\"", "gone = \"archive\""]);
    case(&with_notes("log id,at"), "").is("notes#1: id=1 body=2; log#3: id=1 at=2");
    case(&with_notes("person uuid,first,last,zip uuid"), "[[carry]]\ntable='person'\ndrop={id='discard'}")
        .refused(&["another primary key", "key = { uuid ="]);
}

#[test]
fn what_does_not_fit_is_named_with_the_nearest_right_name() {
    let person = with_notes("person id,given,last,zip");
    let check = |after: &str, carry: &str, word: &str| case(after, carry).refused(&[word]);
    check(&person, "[[carry]]\ntable='persn'", "persn, and there is none of that name before it (did you mean person?)");
    check(
        &person,
        "[[carry]]\ntable='person'\nrename={frist='given'}",
        "person.frist, and there is none of that name before it (did you mean first?)",
    );
    check(&person, "[[carry]]\ntable='person'\nrename={first='givn'}", "person.givn, and there is none of that name after it (did you mean given?)");
    check(&person, "[[carry]]\ntable='person'\nto='peple'", "peple, and there is none of that name after it");
    check(&person, "[[carry]]\ntable='person'\nrename={first='given'}\n[[carry]]\ntable='person'", "two things of person");
    check(&person, "[[carry]]\ntable='person'\nrename={first='given'}\ndrop={FIRST='block'}", "two things of person.");
    check(&person, "[[carry]]\ntable='person'\nrename={first='given',last='given'}", "two things of person.given");
    check(&person, "[[carry]]\ntable='person'\nrename={first='given'}\ndrop={zip='block'}", "person.zip goes, and it is still there");
    check(&person, "[[carry]]\ntable='person'\nrename={first='last'}", "gives person.last to another");
    check(&person, "[[carry]]\ntable='person'\nsplit={first=['given']}", "two or more");
    check(&person, "[[carry]]\ntable='person'\nmerge={given=['first']}", "fewer than two");
    check(&person, "[[carry]]\ntable='person'\nrename={first='given'}\nkey={given='1'}", "no part of the new primary key (id)");
    check(&person, "[[carry]]\ntable='person'\ngone='block'", "person is gone, and it is still there");
    check(NOTES, "[[carry]]\ntable='person'\ngone='block'\ndrop={zip='block'}", "`drop` is said of a table that goes");
    check(
        &with_notes("person id,first,last\nplace person,zip person"),
        "[[carry]]\ntable='person'\n[carry.into.place]\nkey={zip='id'}\ncolumns={zip='zip'}",
        "the primary key of place, which is (person)",
    );
    check(
        &person,
        "[[carry]]\ntable='person'\nrename={first='given'}\n[carry.into.notes]\nkey={id='id'}\ncolumns={last='body'}",
        "notes is no new table",
    );
    check(&person, "[[carry]]\ntable='person'\nrename={first='given'}\n[carry.into.plce]\nkey={id='id'}\ncolumns={}", "plce");
}
