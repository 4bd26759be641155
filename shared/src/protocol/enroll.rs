//! `POST /api/enroll`: an enrolment token becomes a device token.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, DeviceId, Digest, EnrolmentId};

/// What a device asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// The same one until it is answered: an answer that got lost costs no second use of the token. Random, from the
    /// device; a device that sends none asks for something new each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment_id: Option<EnrolmentId>,
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

impl EnrollRequest {
    /// What is asked, without the id: the same id may come with nothing else.
    pub fn content(&self) -> Digest {
        let bare = Self { enrolment_id: None, ..self.clone() };
        Digest::of(&serde_json::to_vec(&bare).expect("a request has text keys"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_everything_but_the_id() {
        let plain: EnrollRequest = serde_json::from_str(r#"{"token":"wht_a"}"#).unwrap();
        let with_id = EnrollRequest { enrolment_id: Some(EnrolmentId::from_dice(1)), ..plain.clone() };
        assert_eq!(with_id.content(), plain.content());
        assert_ne!(EnrollRequest { token: "wht_b".to_owned(), ..plain.clone() }.content(), plain.content());
        assert_eq!(serde_json::from_str::<EnrollRequest>(&serde_json::to_string(&with_id).unwrap()).unwrap(), with_id);
    }
}
