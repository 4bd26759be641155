//! Why a `[[carry]]` does not fit, or is needed.

/// Why a `[[carry]]` does not fit, or is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarryError {
    /// It names a table that is not there.
    #[error("[[carry]] names the table {table}, and there is none of that name{when}{near}")]
    NoTable {
        /// As it was said.
        table: String,
        /// ` before`, ` after`, or nothing.
        when: &'static str,
        /// The nearest right name, in words, or nothing.
        near: String,
    },
    /// It names a column that is not there.
    #[error("[[carry]] names {table}.{column}, and there is none of that name{when}{near}")]
    NoColumn {
        /// The table.
        table: String,
        /// As it was said.
        column: String,
        /// ` before`, ` after`, or nothing.
        when: &'static str,
        /// The nearest right name, in words, or nothing.
        near: String,
    },
    /// Two things are said of one.
    #[error("[[carry]] says two things of {what}")]
    Twice {
        /// The table or column.
        what: String,
    },
    /// What is said to go or to be renamed is still there.
    #[error("[[carry]] says that {what} {fate}, and it is still there")]
    StillThere {
        /// The table or column.
        what: String,
        /// What is said of it.
        fate: &'static str,
    },
    /// A name is said to be new that was another column's.
    #[error("[[carry]] gives {what} to another, and what has had that name is still somewhere")]
    Occupied {
        /// The column.
        what: String,
    },
    /// A statement was seen to do something else.
    #[error("[[carry]] says that {what} becomes {said}, and a statement renames it to {seen}")]
    Contradicts {
        /// The table or column.
        what: String,
        /// What is said of it.
        said: String,
        /// What was seen.
        seen: String,
    },
    /// A word that means nothing there.
    #[error("[[carry]] of {table}: {why}")]
    Senseless {
        /// The table.
        table: String,
        /// What is wrong.
        why: String,
    },
    /// Something has to be said.
    #[error("{why}, and unsent edits have to be told where to go")]
    Needed {
        /// What happened.
        why: String,
        /// What to write, exactly; alternatives one under the other.
        text: String,
    },
}

impl CarryError {
    /// What can be done.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoTable { .. } | Self::NoColumn { .. } => "correct the name in migration.toml".to_owned(),
            Self::Twice { .. } => "say one thing of it".to_owned(),
            Self::StillThere { .. } => "let the SQL do it too, or take the entry away".to_owned(),
            Self::Occupied { .. } => "say of what had the name before where it goes: rename, drop, split or merge".to_owned(),
            Self::Contradicts { seen, .. } => format!("say {seen}, or correct the statement"),
            Self::Senseless { .. } => "correct the entry in migration.toml".to_owned(),
            Self::Needed { text, .. } => format!("write in migration.toml:\n{text}"),
        }
    }
}
