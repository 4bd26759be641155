//! What `adopt status` is answered with.

use std::sync::PoisonError;

use whimbrel_shared::{
    protocol::state::{HealthItem, Severity},
    remedy::wait,
};

use super::{
    protocol::{AdoptView, AdoptedView, DatabaseView, Reply, Selector, TrackerView, WouldAdopt},
    server::{Desk, View},
};
use crate::migrate::{
    adopt::{Survey, Word, past::Past, survey},
    gate::item,
};

impl Desk {
    /// Looks at the trackers and schemas of the databases that are meant. Writes nothing.
    pub(super) fn adopt(&self, database: &Selector) -> Reply {
        let chosen = match self.select(database) {
            Ok(chosen) => chosen,
            Err(refusal) => return refusal,
        };
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Reply::Adopt { databases: chosen.into_iter().map(|database| self.adopt_one(&database, views.get(&database.path))).collect() }
    }

    fn adopt_one(&self, database: &DatabaseView, view: Option<&View>) -> AdoptView {
        let empty = AdoptView {
            path: database.path.clone(),
            app: database.app.clone(),
            version: database.version,
            latest: database.latest,
            trackers: Vec::new(),
            adopted: None,
            would: None,
            refused: None,
        };
        let Some(view) = view else { return AdoptView { refused: Some(not_looked_at(database)), ..empty } };
        match survey(&self.shared, &view.site, &view.looked, &view.chain, Word::default()) {
            Ok(found) => described(found, empty),
            Err(error) => AdoptView { refused: Some(item(error.code(), Severity::Error, error.to_string(), error.remedy())), ..empty },
        }
    }
}

fn described(found: Survey, empty: AdoptView) -> AdoptView {
    let adopted = found.adopted.map(|a| AdoptedView { version: a.version, by: a.by, at_ms: a.at_ms, drift: a.drift });
    let (would, refused) = match found.decision {
        Ok(d) => (Some(WouldAdopt { version: d.version, by: d.by.name().to_owned(), notes: d.notes }), None),
        Err(why) => (None, Some(item(why.code(), Severity::Info, why.to_string(), why.remedy()))),
    };
    AdoptView { trackers: found.pasts.iter().map(tracker).collect(), adopted, would, refused, ..empty }
}

fn tracker(past: &Past) -> TrackerView {
    TrackerView {
        tool: past.tool.name().to_owned(),
        table: past.table.clone(),
        applied: u32::try_from(past.applied.len()).unwrap_or(u32::MAX),
        last: past.applied.last().map(|a| a.id.clone()),
        trouble: past.trouble.as_ref().map(|t| t.what.clone()),
    }
}

fn not_looked_at(database: &DatabaseView) -> HealthItem {
    let none = || item("not_looked_at", Severity::Info, "it was not looked at yet", wait("ask again in a moment"));
    database.health.first().cloned().unwrap_or_else(none)
}
