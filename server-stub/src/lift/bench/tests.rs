//! Expressions on the bench: what they compute, and what they may not.

use whimbrel_shared::lift::LiftColumn;

use super::*;

pub(in crate::lift) fn fill(create: &str, set: &str, filter: &str, columns: &[(&str, u32, u32)]) -> Fill {
    let column = |(name, before, after): &(&str, u32, u32)| LiftColumn { name: (*name).to_owned(), before: *before, after: *after };
    Fill {
        table: create.split('(').next().unwrap().to_owned(),
        create: format!("CREATE TABLE {create}"),
        set: set.to_owned(),
        filter: filter.to_owned(),
        columns: columns.iter().map(column).collect(),
    }
}

pub(in crate::lift) fn hop(version: u32, fills: Vec<Fill>) -> Hop {
    Hop { table: 1, version, key: vec![1], fills }
}

/// What the columns are, by id: `3=x` computed, `3~x` the default.
fn run(hop: &Hop, row: &[(u32, Value)]) -> Result<String, String> {
    let held = |id: u32| row.iter().find(|(column, _)| *column == id).map(|(_, value)| value.clone());
    let ran = Bench::default().run(hop, &[Value::Integer(7)], &held);
    if let Some((_, why)) = ran.failed {
        return Err(why);
    }
    let one = |(id, f): (&u32, &Filled)| format!("{id}{}{:?}<{:?}", if f.computed { '=' } else { '~' }, f.value, f.sources);
    Ok(ran.filled.iter().map(one).collect::<Vec<_>>().join(" ").replace('"', ""))
}

const NOTE: [(&str, u32, u32); 4] = [("id", 1, 1), ("title", 2, 2), ("slug", 0, 3), ("n", 0, 4)];

fn note(set: &str, filter: &str) -> Hop {
    hop(2, vec![fill("note(id INTEGER PRIMARY KEY, title TEXT NOT NULL, slug TEXT DEFAULT '-', n INTEGER)", set, filter, &NOTE)])
}

#[test]
fn a_row_gets_what_its_table_would_have_given_it() {
    let titled = [(2, Value::text("A b"))];
    let check = |set: &str, filter: &str, expected: &str| assert_eq!(run(&note(set, filter), &titled).as_deref(), Ok(expected), "{set}");
    check("slug = replace(lower(title), ' ', '-')", "slug = '-'", "3=a-b<{2}");
    // The column's type, the key, the default, what the condition reads.
    check("n = '12', slug = id", "1", "3=7<{} 4=12<{}");
    check("n = 1", "title = 'other'", "4~NULL<{2}");
    check("slug = 'x'", "title = 'other'", "3~-<{2}");
    // Each column has its own sources.
    check("(slug, n) = (title, id)", "1", "3=A b<{2} 4=7<{}");
    check("n = length(title), slug = 'c'", "1", "3=c<{} 4=3<{2}");
    // A column that is not said and must have a value has something, as long as nobody asks for it.
    assert_eq!(run(&note("n = id", "1"), &[]).as_deref(), Ok("4=7<{}"));
}

#[test]
fn one_backfill_goes_on_from_another_under_whatever_names() {
    let first =
        fill("p(id, name, family, tmp)", "family = name, tmp = length(name)", "1", &[("id", 1, 1), ("name", 2, 0), ("family", 0, 3), ("tmp", 0, 0)]);
    let second = fill("q(id, surname, tmp)", "surname = surname || tmp", "tmp > 2", &[("id", 1, 1), ("surname", 0, 3), ("tmp", 0, 0)]);
    let both = hop(2, vec![first, second]);
    assert_eq!(run(&both, &[(2, Value::text("King"))]).as_deref(), Ok("3=King4<{2}"));
    assert_eq!(run(&both, &[(2, Value::text("Ng"))]).as_deref(), Ok("3=Ng<{2}"));
    // A column that is filled anew is the old one where the condition does not hold.
    let anew = hop(2, vec![fill("t(id, zip)", "zip = upper(zip)", "zip LIKE 'a%'", &[("id", 1, 1), ("zip", 2, 5)])]);
    assert_eq!(run(&anew, &[(2, Value::text("a1"))]).as_deref(), Ok("5=A1<{2}"));
    assert_eq!(run(&anew, &[(2, Value::text("b1"))]).as_deref(), Ok("5=b1<{2}"));
}

#[test]
fn what_is_more_than_an_expression_over_its_row_is_refused() {
    let check = |set: &str, filter: &str, word: &str| {
        let why = run(&note(set, filter), &[(2, Value::text("a"))]).unwrap_err();
        assert!(why.contains(word), "{set}: {why}");
    };
    check("slug = hex(randomblob(4))", "1", "randomblob()");
    check("slug = current_timestamp", "1", "current_timestamp()");
    check("slug = load_extension('x')", "1", "load_extension");
    check("slug = (SELECT max(title) FROM note)", "1", "SELECT");
    check("slug = title FROM sqlite_schema", "1", "SELECT");
    check("slug = 'x' WHERE 1; DELETE FROM note; --", "1", "more than");
    check("slug = 'x'", "1); DROP TABLE note; SELECT (1", "more than");
    check("slug = 'x' RETURNING 1; --", "1", "more than");
    check("nowhere = 1", "1", "no such column");
    let elsewhere = Fill { create: "CREATE TABLE note AS SELECT 1; ATTACH 'x' AS y".to_owned(), ..note("slug = 1", "1").fills.remove(0) };
    assert!(run(&hop(2, vec![elsewhere]), &[]).is_err());
    let trigger = Fill { create: "CREATE TRIGGER note AFTER INSERT ON x BEGIN SELECT 1; END".to_owned(), ..note("slug = 1", "1").fills.remove(0) };
    assert!(run(&hop(2, vec![trigger]), &[]).is_err());
}

#[test]
fn a_row_for_which_it_fails_or_costs_too_much_is_left_and_the_next_one_goes_on() {
    let mut bench = Bench::default();
    // Each on the same bench, as a version of its own.
    let of = |version: u32, set: &str| Hop { version, ..note(set, "1") };
    let mut check = |hop: &Hop, title: Value, expected: Result<&str, &str>| {
        let ran = bench.run(hop, &[Value::Integer(7)], &|id| (id == 2).then(|| title.clone()));
        match (expected, ran.failed) {
            (Ok(value), None) => assert_eq!(ran.filled[&4].value, Value::text(value)),
            (Err(word), Some((columns, why))) => {
                assert!(why.contains(word) && !why.contains("secret"), "{why}");
                assert_eq!((columns, ran.filled.len()), (BTreeSet::from([4]), 0));
            }
            (_, failed) => panic!("{failed:?}"),
        }
    };
    let json = of(2, "n = json_extract(title, '$.a')");
    check(&json, Value::text("{\"a\":\"b\"}"), Ok("b"));
    check(&json, Value::text("secret"), Err("malformed JSON"));
    check(&json, Value::text("{\"a\":\"c\"}"), Ok("c"));
    check(&of(3, "n = 'x'"), Value::Null, Err("NOT NULL"));
    check(&of(4, "n = zeroblob(100000000)"), Value::text("a"), Err("too big"));
    check(&of(5, "n = (title LIKE title)"), Value::Text(vec![b'%'; 5_000]), Err("pattern too complex"));
    check(&json, Value::text("{\"a\":\"d\"}"), Ok("d"));
    // Deep, and within what a row may cost.
    let long = "json(title) || ".repeat(150);
    check(&of(6, &format!("n = {long} 'x'")), Value::text("[1]"), Ok(&format!("{}x", "[1]".repeat(150))));
}
