//! Triggers that keep one table's images true while the application writes. Plain grammar: its library reads them.

use super::shape::Shape;
use crate::migrate::{
    connection::Managed,
    error::{ApplyError, sqlite},
    rows::table::quote,
};

impl Shape {
    /// From now on each change of a row takes its image away, and its key is noted for `unit`.
    pub(super) fn watch(&self, managed: &Managed, unit: u32) -> Result<(), ApplyError> {
        if let Some(index) = &self.unwatchable {
            return Err(ApplyError::BadStep {
                place: self.table.name.clone(),
                why: format!(
                    "rows that a REPLACE deletes cannot be told by {index:?}; drop it in a step before and make it again in one after, or use mode = \"atomic\""
                ),
            });
        }
        let gone = |row: &str| self.without_image(&self.side, |old| format!("{row}.{old}"));
        let columns: Vec<String> = (1..=self.table.key.len()).map(|n| format!("k{n}")).collect();
        let (columns, key) = (columns.join(", "), self.table.key_list());
        let of_new: Vec<String> = self.table.key.iter().map(|column| format!("NEW.{column}")).collect();
        let note = format!("INSERT INTO _whimbrel_touched (unit, {columns}) VALUES ({unit}, {});", of_new.join(", "));
        // A row without an image has its note, or the walk has yet to come to it: so however often the application changes a
        // row, it has one note until it is looked at again.
        let moved: Vec<String> = self.table.key.iter().map(|column| format!("OLD.{column} IS NOT NEW.{column}")).collect();
        let note_first = format!(
            "INSERT INTO _whimbrel_touched (unit, {columns}) SELECT {unit}, {} WHERE {} OR EXISTS (SELECT 1 FROM {} WHERE {});",
            of_new.join(", "),
            moved.join(" OR "),
            quote(&self.side),
            self.image.iter().map(|(new, old)| format!("{new} = OLD.{old}")).collect::<Vec<_>>().join(" AND ")
        );
        let table = quote(&self.table.name);
        let rivals: String = self
            .rivals
            .iter()
            .map(|rival| {
                let image = self.without_image(&self.side, |old| format!("(SELECT {old} FROM {table} WHERE {rival})"));
                format!("INSERT INTO _whimbrel_touched (unit, {columns}) SELECT {unit}, {key} FROM {table} WHERE {rival}; {image}")
            })
            .collect();
        let mut triggers = vec![
            ("insert", "AFTER INSERT", format!("{} {note}", gone("NEW"))),
            ("update", "AFTER UPDATE", format!("{note_first} {} {}", gone("OLD"), gone("NEW"))),
            ("delete", "AFTER DELETE", gone("OLD")),
        ];
        if !rivals.is_empty() {
            triggers.push(("replace", "BEFORE INSERT", rivals.clone()));
            triggers.push(("move", "BEFORE UPDATE", rivals));
        }
        install(managed, unit, &self.table.name, &triggers)
    }

    /// From now on each change of a row of the new table takes the row away that it came from. What is put aside must not
    /// keep the application from deleting a row that only it still refers to.
    pub(super) fn watch_aside(&self, managed: &Managed, unit: u32) -> Result<(), ApplyError> {
        if !self.refers {
            return Ok(());
        }
        let gone = |value: &dyn Fn(&str) -> String| {
            let terms: Vec<String> = self.image.iter().map(|(new, old)| format!("{old} = {}", value(new))).collect();
            format!("DELETE FROM {} WHERE {};", quote(&self.aside), terms.join(" AND "))
        };
        let of = |row: &'static str| gone(&|new| format!("{row}.{new}"));
        let name = quote(&self.name);
        let rivals: String = self.new_rivals.iter().map(|rival| gone(&|new| format!("(SELECT {new} FROM {name} WHERE {rival})"))).collect();
        let mut triggers = vec![
            ("insert", "AFTER INSERT", of("NEW")),
            ("update", "AFTER UPDATE", format!("{} {}", of("OLD"), of("NEW"))),
            ("delete", "AFTER DELETE", of("OLD")),
        ];
        if !rivals.is_empty() {
            triggers.push(("replace", "BEFORE INSERT", rivals.clone()));
            triggers.push(("move", "BEFORE UPDATE", rivals));
        }
        install(managed, unit, &self.name, &triggers)
    }

    fn without_image(&self, table: &str, value: impl Fn(&str) -> String) -> String {
        let terms: Vec<String> = self.image.iter().map(|(new, old)| format!("{new} = {}", value(old))).collect();
        format!("DELETE FROM {} WHERE {};", quote(table), terms.join(" AND "))
    }
}

fn install(managed: &Managed, unit: u32, table: &str, triggers: &[(&str, &str, String)]) -> Result<(), ApplyError> {
    let table = quote(table);
    for (name, event, body) in triggers {
        // It is there when a run died before its first chunk.
        let name = format!("main._whimbrel_catch_{unit}_{name}");
        let sql = format!("DROP TRIGGER IF EXISTS {name}; CREATE TRIGGER {name} {event} ON {table} BEGIN {body} END");
        managed.connection.execute_batch(&sql).map_err(sqlite("watching what the application touches"))?;
    }
    Ok(())
}
