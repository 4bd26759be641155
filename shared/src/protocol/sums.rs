//! `GET /api/sync/sums`: what a database's rows should come to, so that equality can be proven without sending them.

use serde::{Deserialize, Serialize};

use super::push::Series;
use crate::{ids::ClientId, sums::TableSums};

/// What is asked, in the query of the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumsRequest {
    /// The database.
    pub client_id: ClientId,
    /// The version that its file has completed: which tables and columns are summed.
    pub schema: u32,
}

/// The sums of the tables that a pull at that version tells, as of one moment. A file compares when it has landed everything
/// up to `version`, and only rows of which nothing is unsent; that is so when nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumsResponse {
    /// What `version` counts in.
    pub series: Series,
    /// The space's last number at that moment.
    pub version: u64,
    /// By ascending table id.
    pub tables: Vec<TableSums>,
}
