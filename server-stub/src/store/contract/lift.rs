//! The part of the contract that is about rows of older versions.

use whimbrel_shared::{
    change::{Change, Edit},
    hlc::Clock,
    ids::{ClientId, DeviceId},
    lift::Lift,
    manifest::Manifest,
    migration::{FORMAT, Link, Migration, TargetEntry},
    protocol::{
        conflicts::KeptKind,
        publish::{PublishLink, SeedQueries},
        pull::PullRequest,
        push::Answer,
        sums::{SumsRequest, SumsResponse},
    },
    value::Value,
};

use super::rows::*;
use super::*;

/// One version: its manifest, what it does to ids and settings, and its lifts: columns by name, id before and after.
struct Version {
    toml: &'static str,
    columns: &'static str,
    sync: String,
    lifts: Vec<(&'static str, &'static str)>,
}

async fn publish_versions(store: &dyn Store, versions: Vec<Version>) {
    let mut links: Vec<PublishLink> = Vec::new();
    for (number, version) in (1..).zip(versions) {
        let lift = |(create, columns): &(&str, &str)| Lift {
            step: 1,
            table: 1,
            create: (*create).to_owned(),
            columns: serde_json::from_str(columns).unwrap(),
        };
        let name: whimbrel_shared::ids::MigrationName = format!("{number:04}").parse().unwrap();
        let manifest = Manifest::parse(version.toml).unwrap();
        let body = Migration { format: FORMAT.to_owned(), name: name.clone(), manifest, down: None, files: Default::default() }.to_bytes();
        let link = Link {
            columns: Some(serde_json::from_str(version.columns).unwrap()),
            sync: serde_json::from_str(&version.sync).unwrap(),
            lifts: version.lifts.iter().map(lift).collect(),
            ..Link::new(name, number, links.last().map(|l| l.target.digest()))
        };
        let seed = SeedQueries { timestamp: number.into(), up_queries: Vec::new(), down_queries: Vec::new() };
        links.push(PublishLink { target: TargetEntry::new(&body, link), body: String::from_utf8(body).unwrap(), seed });
    }
    publish_links(store, links).await;
}

fn settings(more: &str) -> String {
    format!(r#"{{"tables":[{{"table":1,"direction":"both","conflict":"keep-newest","key":[[1,"nocase"]]{more}}}]}}"#)
}

/// Notes with a slug (2) and a body (3), as version 1 has them.
fn first() -> Version {
    Version { toml: "", columns: r#"{"made":[[1,"note",[[1,"id"],[2,"slug"],[3,"body"]]]]}"#, sync: settings(""), lifts: Vec::new() }
}

/// The body's first value in JSON becomes a column, which is unique.
fn second() -> Version {
    Version {
        toml: "mode='online'\n[[step]]\nbackfill='note'\nset=\"head = json_extract(body, '$[0]')\"\nwhere='head IS NULL'",
        columns: r#"{"made":[[1,"note",[[1,"id"],[2,"slug"],[3,"body"],[4,"head"]]]]}"#,
        sync: settings(r#","unique":[[[4,"binary"]]]"#),
        lifts: vec![(
            "CREATE TABLE note(id TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, slug, body, head TEXT)",
            r#"[["id",1,1],["slug",2,2],["body",3,3],["head",0,4]]"#,
        )],
    }
}

async fn sums(store: &dyn Store, database: &Database<'_>) -> SumsResponse {
    let asked = SumsRequest { client_id: ClientId::from_dice(database.n), schema: database.schema };
    store.sums(DeviceId::from_dice(database.n), asked).await.unwrap()
}

pub(crate) async fn a_row_of_an_older_version_is_told_with_what_newer_ones_compute_from_it(store: &dyn Store) {
    publish_versions(store, vec![first()]).await;
    let mut old = Database::new(store, 1).await;
    old.push(&[note("a", "x", "[1]"), note("b", "y", "[2]")]).await;
    publish_versions(store, vec![first(), second()]).await;
    // Rows from before it was published, as a database that comes new to it sees them, and in its sums.
    let mut new = Database::new(store, 2).await;
    new.schema = 2;
    let page = new.pull().await;
    assert_eq!(short(&page.rows), ["a: 2=x 3=[1] 4=1", "b: 2=y 3=[2] 4=2"]);
    assert_eq!(page.rows[0].clock, Clock::at_ms(100), "a computed value has a clock of its own");
    let head = sums(store, &new).await.tables[0].columns[2].1;
    assert_eq!(head.rows, 2);
    // Rows and edits from then on; the older one is told nothing that it does not know.
    assert_eq!(old.push(&[note("c", "z", "[3]"), edit("a", 1, &[(3, "[9]")], 500), edit("b", 2, &[(2, "yy")], 500)]).await.answers, []);
    assert_eq!(short(&new.pull().await.rows), ["c: 2=z 3=[3] 4=3", "a: 2=x 3=[9] 4=9", "b: 2=yy 3=[2] 4=2"]);
    let mut other = Database::new(store, 3).await;
    assert_eq!(short(&other.pull().await.rows), ["c: 2=z 3=[3]", "a: 2=x 3=[9]", "b: 2=yy 3=[2]"]);
    // Who moves gets in one walk what others computed.
    old.schema = 2;
    let walk = PullRequest { since_schema: Some(1), until: Some(5), cursor: 0, ..old.asked() };
    assert_eq!(short(&old.ask(walk).await.unwrap().rows), ["c: 4=3", "a: 4=9", "b: 4=2"]);
}

pub(crate) async fn an_older_clients_edit_of_what_a_newer_one_wrote_is_a_conflict_and_both_sides_are_kept(store: &dyn Store) {
    publish_versions(store, vec![first(), second()]).await;
    let (mut old, mut new) = (Database::new(store, 1).await, Database::new(store, 2).await);
    new.schema = 2;
    old.push(&[note("a", "x", "[1]")]).await;
    new.pull().await;
    assert_eq!(new.push(&[edit("a", 1, &[(4, "mine")], 300)]).await.answers, []);
    old.pull().await;
    // It saw the row as it is, but not that column.
    assert_eq!(old.push(&[edit("a", 2, &[(3, "[2]")], 500)]).await.answers, []);
    assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=[2] 4=2"]);
    let all = kept(store, false).await;
    let column = &all[0].detail.columns[0];
    assert_eq!((all.len(), all[0].open, all[0].detail.kind, column.column), (1, false, KeptKind::Edits, 4));
    assert_eq!((&column.arrived, &column.there, column.taken), (&Some(Value::text("2")), &Some(Value::text("mine")), true));
    // One that is older loses, and what it is computed from stands all the same.
    new.push(&[edit("a", 3, &[(4, "mine again")], 900)]).await;
    assert_eq!(old.push(&[edit("a", 3, &[(3, "[3]")], 800)]).await.answers, [(0, Answer::Behind)]);
    assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=[3] 4=mine again"]);
    assert_eq!(kept(store, false).await.len(), 2);
}

pub(crate) async fn a_row_for_which_a_backfill_fails_is_kept_without_the_column_and_listed_once(store: &dyn Store) {
    publish_versions(store, vec![first()]).await;
    let (mut old, mut new) = (Database::new(store, 1).await, Database::new(store, 2).await);
    old.push(&[note("a", "x", "no JSON")]).await;
    publish_versions(store, vec![first(), second()]).await;
    new.schema = 2;
    for _ in 0..2 {
        new.cursor = 0;
        assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=no JSON"]);
    }
    assert_eq!(old.push(&[note("b", "y", "nor this")]).await.answers, []);
    let open = kept(store, true).await;
    let told: Vec<_> = open.iter().map(|k| (k.detail.kind, k.detail.key.clone(), k.detail.schema, k.detail.columns[0].column)).collect();
    assert_eq!(told, [(KeptKind::NotLifted, vec![Value::text("b")], 2, 4), (KeptKind::NotLifted, vec![Value::text("a")], 2, 4)]);
    assert_eq!((open[0].client_id, open[0].detail.why.as_deref()), (ClientId::from_dice(1), Some("malformed JSON")));
    // Nothing else settles it than a value: neither the same client's next word nor another's.
    old.push(&[edit("a", 1, &[(2, "z")], 500)]).await;
    assert_eq!(kept(store, true).await.len(), 2);
    old.push(&[edit("a", 3, &[(3, "[7]")], 600)]).await;
    new.push(&[edit("b", 2, &[(4, "a person's")], 700)]).await;
    assert_eq!(kept(store, true).await, []);
    assert_eq!(short(&new.pull().await.rows), ["a: 2=z 3=[7] 4=7", "b: 2=y 3=nor this 4=a person's"]);
}

pub(crate) async fn a_computed_value_that_another_row_has_is_left_out_and_the_row_is_not(store: &dyn Store) {
    publish_versions(store, vec![first(), second()]).await;
    let (mut old, mut new) = (Database::new(store, 1).await, Database::new(store, 2).await);
    new.schema = 2;
    assert_eq!(old.push(&[note("a", "x", "[1]"), note("b", "y", "[1]"), note("c", "z", "[3]")]).await.answers, []);
    assert_eq!(old.push(&[edit("c", 3, &[(3, "[1]")], 500)]).await.answers, []);
    assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=[1] 4=1", "b: 2=y 3=[1]", "c: 2=z 3=[1] 4=3"]);
    let open = kept(store, true).await;
    assert!(open.iter().all(|k| k.detail.why.as_deref().is_some_and(|w| w.contains("unique set"))) && open.len() == 2, "{open:?}");
    // What somebody says themselves is refused as ever.
    let taken = new.push(&[edit("b", 2, &[(4, "1")], 900)]).await.answers;
    assert!(matches!(taken.as_slice(), [(0, Answer::Rejected(_))]), "{taken:?}");
}

pub(crate) async fn rows_change_in_their_place_where_older_versions_may_not_write_any_more(store: &dyn Store) {
    let loud = || Version {
        toml: "mode='online'\n[[step]]\nbackfill='note'\nset='body = upper(body) || id'\nwhere=\"body <> 'b'\"",
        columns: "{}",
        sync: settings(r#","min_schema":2"#),
        lifts: vec![("CREATE TABLE note(id TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, slug, body)", r#"[["id",1,1],["slug",2,2],["body",3,3]]"#)],
    };
    publish_versions(store, vec![first()]).await;
    let (mut old, mut new) = (Database::new(store, 1).await, Database::new(store, 2).await);
    old.push(&[note("a", "x", "a"), note("b", "y", "b")]).await;
    publish_versions(store, vec![first(), loud()]).await;
    new.schema = 2;
    assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=Aa", "b: 2=y 3=b"]);
    // Once, whoever touches the row then.
    assert_eq!(new.push(&[edit("a", 1, &[(2, "xx")], 500), edit("b", 2, &[(3, "said")], 500)]).await.answers, []);
    let mut fresh = Database::new(store, 3).await;
    fresh.schema = 2;
    assert_eq!(short(&fresh.pull().await.rows), ["a: 2=xx 3=Aa", "b: 2=y 3=said"]);
    // The older one's word waits, once for each row, until it says it in the new terms.
    for body in ["1", "2"] {
        let held = old.push(&[edit("a", 1, &[(3, body)], 600), edit("b", 2, &[(3, body)], 600)]).await.answers;
        assert_eq!(held, [(0, Answer::Held { min_schema: 2 }), (1, Answer::Held { min_schema: 2 })]);
    }
    let body = |change: &Change| match &change.edit {
        Edit::Present { cells, .. } => format!("{:?}={:?}", change.key[0], cells[0].value),
        Edit::Deleted { .. } => unreachable!(),
    };
    let waits = async || kept(store, true).await.iter().map(|k| body(k.detail.change.as_ref().unwrap())).collect::<Vec<_>>();
    assert_eq!(waits().await, [r#""b"="2""#, r#""a"="2""#]);
    old.schema = 2;
    old.push(&[edit("a", 1, &[(3, "2A")], 600)]).await;
    assert_eq!(waits().await, [r#""b"="2""#], "the other row waits on");
    old.push(&[deletion("b", 4)]).await;
    assert_eq!(waits().await, [""; 0]);
    assert_eq!(short(&fresh.pull().await.rows), ["a: 2=xx 3=2A", "b: gone"]);
}
