//! `POST /api/token`: a device takes another token in the place of the one that it asks with.

use serde::{Deserialize, Serialize};

use crate::ids::Digest;

/// What a device asks. It has the new token on its disk before; the server never sees it before it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// SHA-256 of the new token. Asking twice with the same one is asking once.
    pub next: Digest,
}

/// What it gets: the new token counts from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// For how many seconds the old token counts too.
    pub grace_s: u64,
}
