//! What can be done about an error, and by whom. Pure. The same value paces the retry, prints on the command line,
//! travels in the report and fills the dashboard.

use serde::{Deserialize, Serialize};

/// Who can mend an error, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "who", content = "what", rename_all = "snake_case")]
pub enum Remedy {
    /// Nobody needs to act: it is tried again by itself. The text says what it waits for.
    Wait(String),
    /// Someone at the server must act (publish a revision, correct a plan, issue a token).
    Operator(String),
    /// Someone at this device must act; the text names the command or the setting.
    Here(String),
}

impl Remedy {
    /// One sentence for a person.
    pub fn sentence(&self) -> String {
        match self {
            Self::Wait(what) => format!("nothing to do: {what}"),
            Self::Operator(what) => format!("for the operator: {what}"),
            Self::Here(what) => what.clone(),
        }
    }

    /// Whether a person has to act before it can go on.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::Wait(_) => false,
            Self::Operator(_) | Self::Here(_) => true,
        }
    }
}

/// Shorthands, so that an error's table of remedies reads as one.
pub fn wait(what: impl Into<String>) -> Remedy {
    Remedy::Wait(what.into())
}
/// See [`Remedy::Operator`].
pub fn operator(what: impl Into<String>) -> Remedy {
    Remedy::Operator(what.into())
}
/// See [`Remedy::Here`].
pub fn here(what: impl Into<String>) -> Remedy {
    Remedy::Here(what.into())
}
