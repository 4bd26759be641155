//! Why a database is not taken over, and what to do. Whatever it is, the file is as it was.

use whimbrel_shared::remedy::{Remedy, here, operator, wait};

use super::{
    map::Unmapped,
    past::{Tool, Trouble, TroubleKind},
};
use crate::migrate::error::{ApplyError, NAMED};

/// Why a database was not taken over, or is not given back. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is nothing to compare with.
    #[error("no migration of this app has been accepted yet")]
    NoChain,
    /// It has a history of ours.
    #[error("its history is whimbrel's own already, up to version {version}")]
    Begun {
        /// How far.
        version: u32,
    },
    /// An interrupted run is in the way.
    #[error("a run of migrations is not finished")]
    Unfinished,
    /// There is no past.
    #[error("there is nothing to take over: no tracker of another tool, and none of the chain's tables")]
    NoPast,
    /// The tracker cannot be believed.
    #[error("{tool} ({table}): {}", trouble.what)]
    Trouble {
        /// Whose.
        tool: Tool,
        /// Where.
        table: String,
        /// What.
        trouble: Trouble,
    },
    /// The tracker does not fit the chain.
    #[error("{tool} ({table}): {why}")]
    Unmapped {
        /// Whose.
        tool: Tool,
        /// Where.
        table: String,
        /// Why.
        why: Unmapped,
        /// The version that the schema alone would say.
        fits: Option<u32>,
    },
    /// Two trackers end at different versions.
    #[error("{first} says version {first_version}, and {second} says version {second_version}")]
    Disagree {
        /// One.
        first: Tool,
        /// Where it ends.
        first_version: u32,
        /// Another.
        second: Tool,
        /// Where it ends.
        second_version: u32,
    },
    /// The file is not what the chain would have left at that version.
    #[error("the schema is not that of version {version}: {}", listed(drift))]
    Drift {
        /// The version.
        version: u32,
        /// Object by object.
        drift: Vec<String>,
    },
    /// Several versions leave the same schema.
    #[error("the schema is that of the versions {}: which of them is in place cannot be seen", versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
    Several {
        /// Which.
        versions: Vec<u32>,
    },
    /// What the chain would have left is not known.
    #[error("what version {version} leaves behind is not known: it was published without a rehearsal, and does not run on an empty database")]
    Unknown {
        /// The version.
        version: u32,
    },
    /// A version or name that is not in the chain.
    #[error("the accepted chain has no version {asked:?}; its last is {latest}")]
    NoSuchVersion {
        /// As asked.
        asked: String,
        /// The last.
        latest: u32,
    },
    /// Nothing was adopted.
    #[error("it was not adopted: there is nothing to take back")]
    NotAdopted,
    /// Migrations ran since.
    #[error("{name} (version {version}) ran after it was adopted at version {base}")]
    OnTop {
        /// The newest of them.
        name: String,
        /// Its version.
        version: u32,
        /// Where it was adopted.
        base: u32,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl AdoptError {
    /// A short stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoChain => "no_chain",
            Self::Begun { .. } => "has_history",
            Self::Unfinished => "unfinished",
            Self::NoPast => "no_past",
            Self::Trouble { trouble, .. } => match trouble.kind {
                TroubleKind::Dirty => "tracker_dirty",
                TroubleKind::Locked => "tracker_locked",
            },
            Self::Unmapped { .. } => "tracker_unknown",
            Self::Disagree { .. } => "trackers_disagree",
            Self::Drift { .. } => "adopt_drift",
            Self::Several { .. } => "several_versions",
            Self::Unknown { .. } => "schema_unknown",
            Self::NoSuchVersion { .. } => "unknown_version",
            Self::NotAdopted => "not_adopted",
            Self::OnTop { .. } => "ran_on_top",
            Self::Apply(error) => error.code(),
        }
    }

    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NoChain => operator("publish the migrations that made this database: `whimbrel publish DIRECTORY` reads the other tool's layout"),
            Self::Begun { .. } => here("nothing to do: `whimbrel status` shows where it stands"),
            Self::Unfinished => wait("it is taken up at the next cycle; then adopt again"),
            Self::NoPast => here("nothing to do: the chain begins here at its first migration"),
            Self::Trouble { trouble, .. } => here(trouble.remedy.clone()),
            Self::Unmapped { why: Unmapped::Ahead { .. }, .. } => {
                operator("publish what the database has: the chain must hold every migration that ran")
            }
            Self::Unmapped { why: Unmapped::Gap { missing, .. }, .. } => {
                here(format!("apply {missing} with the other tool first, or `whimbrel adopt run DATABASE --version VERSION`"))
            }
            Self::Unmapped { fits: Some(version), .. } => {
                here(format!("its schema is that of version {version}: `whimbrel adopt run DATABASE --version {version}`"))
            }
            Self::Unmapped { why: Unmapped::Stranger { .. } | Unmapped::Ambiguous { .. }, .. } | Self::Disagree { .. } => {
                here("say what is in place: `whimbrel adopt run DATABASE --version VERSION`")
            }
            Self::Drift { .. } => here(
                "bring the named objects to what the migrations make, or `whimbrel adopt run DATABASE --version VERSION` with another version; \
                 --accept-drift takes it as it is",
            ),
            Self::Several { versions } => {
                let last = versions.last().copied().unwrap_or_default();
                here(format!("they differ in rows only; look, and say it: `whimbrel adopt run DATABASE --version {last}`"))
            }
            Self::Unknown { version } => here(format!("compare it by hand, then `whimbrel adopt run DATABASE --version {version} --accept-drift`")),
            Self::NoSuchVersion { .. } => here("`whimbrel status` lists the chain"),
            Self::NotAdopted => here("`whimbrel adopt status` shows what there is"),
            Self::OnTop { version, base, .. } => {
                let to = (*base).min(version.saturating_sub(1));
                here(format!("`whimbrel revert --to {to} --database DATABASE` first"))
            }
            Self::Apply(error) => error.remedy(),
        }
    }
}

fn listed(drift: &[String]) -> String {
    match drift.len().saturating_sub(NAMED) {
        0 => drift.join("; "),
        more => format!("{}; and {more} more", drift[..NAMED].join("; ")),
    }
}
