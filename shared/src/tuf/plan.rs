//! Plans as the server signs them: what one database may do. Pure.
//!
//! Not a role of TUF, which knows nothing of single clients; in the same form, so that one reader reads both. The key is one of
//! its own, named in the root beside the roles ([`Root::plan`]): a timestamp's key signs for everybody, and must not be able to speak to
//! one database, nor may a server that only gives out plans renew a timestamp.
//!
//! A plan is bound to its database and app, and its `plan_seq` only grows. It has no time of issue: what the order of plans is, the sequence
//! says; that a plan is withheld, no time can tell from a plan that did not change. So the same plan always has the same
//! signature, and an answer with it the same `ETag`.

use serde_json::{Map, Value};

use super::{SPEC_VERSION, envelope::Envelope, key::Verify, root::Root};
use crate::protocol::poll::Plan;

/// The `_type` of a plan.
const TYPE: &str = "plan";

/// Why a plan is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody may sign plans.
    #[error("root version {by} names no keys for plans")]
    NoKeys {
        /// Which root.
        by: u64,
    },
    /// Not by whom it has to be.
    #[error("a plan has {signed} of the {threshold} signatures that root version {by} asks for")]
    NotSigned {
        /// How many were valid.
        signed: usize,
        /// How many are needed.
        threshold: u32,
        /// The root that asks for them.
        by: u64,
    },
    /// Another app's.
    #[error("a plan for the app {found} stands under the root of {expected}")]
    OtherApp {
        /// What it says.
        found: String,
        /// Whose root it is.
        expected: String,
    },
    /// No plan.
    #[error("a plan cannot be read: {0}")]
    Unreadable(String),
}

/// A plan that nobody has signed yet.
pub fn unsigned(plan: &Plan) -> Envelope {
    let mut signed = Map::new();
    signed.insert("_type".to_owned(), TYPE.into());
    signed.insert("spec_version".to_owned(), SPEC_VERSION.into());
    let value = serde_json::to_value(plan).expect("a plan has text keys");
    signed.extend(value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    Envelope::unsigned(Value::Object(signed)).expect("a plan has whole numbers")
}

/// The plan in `envelope`, if the root's keys for plans have signed it and it is for the root's app. Whose database it is for, and whether its
/// sequence has gone back, the caller looks at.
pub fn read(root: &Root, envelope: &Envelope, verify: Verify) -> Result<Plan, PlanError> {
    let Some(keys) = &root.plan else {
        return Err(PlanError::NoKeys { by: root.version });
    };
    let signed = envelope.signed_by(&root.keys, keys, verify);
    if !keys.met_by(&signed) {
        return Err(PlanError::NotSigned { signed: signed.len(), threshold: keys.threshold, by: root.version });
    }
    if envelope.type_word() != TYPE {
        return Err(PlanError::Unreadable(format!("it is of type {:?}", envelope.type_word())));
    }
    let plan: Plan = envelope.content().map_err(PlanError::Unreadable)?;
    match plan.app == root.app {
        true => Ok(plan),
        false => Err(PlanError::OtherApp { found: plan.app.to_string(), expected: root.app.to_string() }),
    }
}
