//! Our enums as words in table cells: the same words as on the wire.

use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// The word of a unit variant, or the JSON of anything else.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value).expect("our own types have text keys") {
        serde_json::Value::String(word) => word,
        other => other.to_string(),
    }
}

/// Reads what [`word`] wrote.
pub(super) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .or_else(|_| serde_json::from_str(text))
        .map_err(|e| StoreError::Damaged { what, detail: e.to_string() })
}
