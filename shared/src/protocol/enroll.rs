//! `POST /api/enroll`: an enrolment token becomes a device token.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, DeviceId};

/// What a device asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// The enrolment token, as `whimbrel-server token create` printed it.
    pub token: String,
    /// Who the device already is, when it enrols for a second app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// Its device token, to prove that it is that device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_token: Option<String>,
    /// A name for people: the host's.
    #[serde(default)]
    pub name: String,
    /// Version of the daemon.
    #[serde(default)]
    pub daemon_version: String,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollResponse {
    /// Who it is from now on.
    pub device_id: DeviceId,
    /// What proves it: `Authorization: Bearer …`. 256 bits; the server keeps only its hash.
    pub device_token: String,
    /// The app that the enrolment token was for.
    pub app: AppName,
    /// The server's [`crate::PROTOCOL`].
    pub protocol: u32,
}
