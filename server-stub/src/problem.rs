//! Every error that leaves over HTTP: what happened, its status, and what to do, as RFC 9457 problem documents.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tracing::error;
use whimbrel_shared::{
    ids::AppName,
    packed,
    protocol::problem::{CONTENT_TYPE, Problem},
    remedy::{Remedy, here, operator, wait},
    tuf::RootError,
};

use crate::{
    api::ENDPOINTS,
    decide::{publish::PublishError, signed::SignedError},
    secrets::{Kind, Scope},
    store::{Refusal, StoreError},
};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No `Authorization: Bearer`.
    #[error("this endpoint is for devices, and the request has no device token")]
    NoDeviceToken,
    /// Not one of ours, or something else.
    #[error("the device token is not known here{}", mistaken(.0))]
    UnknownDeviceToken(Option<Kind>),
    /// No `X-API-Key`.
    #[error("this endpoint is for operators, and the request has no API key")]
    NoApiKey,
    /// Not one of ours, or revoked.
    #[error("the API key is not known here, or was revoked{}", mistaken(.0))]
    UnknownApiKey(Option<Kind>),
    /// A key that may do less.
    #[error("the API key {name} has the scope {has:?}, and this needs {needs:?}")]
    WrongScope {
        /// Name of the key.
        name: String,
        /// What it may do.
        has: Scope,
        /// What would be needed.
        needs: Scope,
    },
    /// Too many failed enrolments, or secrets that nobody has.
    #[error("too many tries from this address failed")]
    TooManyFailures {
        /// Seconds to wait.
        wait_s: i64,
    },
    /// The body is not the JSON that this endpoint takes.
    #[error("the body is not what {endpoint} takes: {why}")]
    BadBody {
        /// Which endpoint.
        endpoint: &'static str,
        /// What serde says, with line and column.
        why: String,
    },
    /// Something in the body, the path or the query is out of its limits.
    #[error("{0}")]
    BadInput(String),
    /// The body is too large.
    #[error("the body has more than the {limit_bytes} bytes that this endpoint reads")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body stopped arriving.
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    /// The connection broke.
    #[error("the body broke off: {0}")]
    BodyBroken(String),
    /// The request took too long here.
    #[error("the request was not done in time; it may still be done")]
    Timeout,
    /// Too many pushes at once.
    #[error("as many pushes as this server takes at once are under way")]
    Busy {
        /// Seconds to wait.
        wait_s: i64,
    },
    /// A body in a form that is not read here.
    #[error("the body is {0:?}, which is not read here")]
    UnknownForm(String),
    /// No such address.
    #[error("there is nothing at {0}")]
    NoRoute(String),
    /// Not with that method.
    #[error("{path} does not take {method}")]
    WrongMethod {
        /// The method.
        method: String,
        /// The address.
        path: String,
    },
    /// A target that was never published.
    #[error("the app {app} has no target {path:?}")]
    NoTarget {
        /// The app.
        app: AppName,
        /// The path.
        path: String,
    },
    /// Signed metadata that is not there.
    #[error("the app {app} has no {file:?}")]
    NoMetadata {
        /// The app.
        app: AppName,
        /// The file.
        file: String,
    },
    /// What is signed, or is not, is refused.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// Links that are refused.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Store(refusal.into())
    }
}

impl ApiError {
    /// What can be done.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::NoDeviceToken => here("enrol the device with `whimbrel enroll`, and send `Authorization: Bearer` with the device token it gets"),
            Self::UnknownDeviceToken(Some(Kind::Enrolment)) => here("exchange the enrolment token with `whimbrel enroll` (`POST /api/enroll`) first"),
            Self::UnknownDeviceToken(_) => here("enrol the device again with `whimbrel enroll`"),
            Self::NoApiKey => here("send `X-API-Key`; `whimbrel-server key create --scope read` makes a key"),
            Self::UnknownApiKey(_) => operator("make a key with `whimbrel-server key create`"),
            Self::WrongScope { needs, .. } => {
                operator(format!("use a key with that scope; `whimbrel-server key create --scope {}` makes one", needs.as_str()))
            }
            Self::TooManyFailures { wait_s } => wait(format!("try again in {wait_s} s")),
            Self::Busy { wait_s } => wait(format!("send it again in {wait_s} s")),
            Self::UnknownForm(_) => here(format!("send application/json or {}", packed::CONTENT_TYPE)),
            Self::BadBody { .. } | Self::BadInput(_) => here("correct the request"),
            Self::TooLarge { .. } => here("send less at once"),
            Self::BodyTooSlow | Self::BodyBroken(_) | Self::Timeout => wait("send the request again; what was done already is not done twice"),
            Self::NoRoute(_) | Self::WrongMethod { .. } => here(format!("the endpoints are: {}", ENDPOINTS.join(", "))),
            Self::NoTarget { app, .. } => here(format!("`GET /repository/{app}/targets.json` names what there is")),
            Self::NoMetadata { app, .. } => here(format!("`GET /api/trust/{app}` says which versions there are")),
            Self::Signed(error) => error.remedy(),
            Self::Publish(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
        }
    }

    /// Status, stable name and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::NoDeviceToken => (S::UNAUTHORIZED, "no-device-token", "no device token"),
            Self::UnknownDeviceToken(_) => (S::UNAUTHORIZED, "unknown-token", "unknown device token"),
            Self::NoApiKey => (S::UNAUTHORIZED, "no-api-key", "no API key"),
            Self::UnknownApiKey(_) => (S::UNAUTHORIZED, "unknown-api-key", "unknown API key"),
            Self::WrongScope { .. } => (S::FORBIDDEN, "wrong-scope", "not with this key"),
            Self::TooManyFailures { .. } => (S::TOO_MANY_REQUESTS, "too-many-failures", "too many failures"),
            Self::BadBody { .. } => (S::BAD_REQUEST, "bad-body", "unreadable body"),
            Self::BadInput(_) => (S::BAD_REQUEST, "bad-input", "bad input"),
            Self::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "too-large", "body too large"),
            Self::BodyTooSlow => (S::REQUEST_TIMEOUT, "body-too-slow", "body too slow"),
            Self::BodyBroken(_) => (S::BAD_REQUEST, "body-broken", "body broken off"),
            Self::Timeout => (S::SERVICE_UNAVAILABLE, "timeout", "took too long"),
            Self::Busy { .. } => (S::TOO_MANY_REQUESTS, "busy", "too much at once"),
            Self::UnknownForm(_) => (S::UNSUPPORTED_MEDIA_TYPE, "unknown-form", "unknown form"),
            Self::NoRoute(_) => (S::NOT_FOUND, "no-such-endpoint", "no such endpoint"),
            Self::WrongMethod { .. } => (S::METHOD_NOT_ALLOWED, "wrong-method", "wrong method"),
            Self::NoTarget { .. } => (S::NOT_FOUND, "no-such-target", "no such target"),
            Self::NoMetadata { .. } => (S::NOT_FOUND, "no-such-metadata", "no such metadata"),
            Self::Signed(error) => match error {
                SignedError::Unsigned(_) => (S::CONFLICT, "not-signed", "not signed"),
                SignedError::NoRoot(_) => (S::CONFLICT, "no-root", "no root"),
                SignedError::Root(RootError::NotADocument(_)) => (S::BAD_REQUEST, "bad-document", "no such document"),
                SignedError::Root(RootError::OtherVersion { .. }) | SignedError::OldVersion { .. } | SignedError::OtherChain { .. } => {
                    (S::CONFLICT, "signed-race", "signed over something else")
                }
                SignedError::Root(_) => (S::FORBIDDEN, "not-authorised", "not signed by whom it has to be"),
                SignedError::Floor { .. } => (S::BAD_REQUEST, "bad-floor", "revert floor too high"),
                SignedError::BelowFloor { .. } => (S::FORBIDDEN, "below-floor", "below the revert floor"),
                SignedError::OtherServer { .. } => (S::CONFLICT, "other-server", "another server's keys"),
                SignedError::NoOnlineKeys => (S::CONFLICT, "no-online-keys", "nothing is signed here"),
            },
            Self::Publish(error) => match error {
                PublishError::BadBody(_) => (S::BAD_REQUEST, "bad-link", "not what its entry says"),
                PublishError::BadChain(_) => (S::CONFLICT, "broken-chain", "broken chain"),
                PublishError::Changed(_) | PublishError::Moved { .. } => (S::CONFLICT, "published-changed", "a published migration changed"),
                PublishError::Taken { .. } => (S::CONFLICT, "version-taken", "version taken"),
            },
            Self::Store(error) => match error {
                StoreError::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "store-unavailable", "store unavailable"),
                StoreError::Newer { .. } | StoreError::Damaged(_) => (S::INTERNAL_SERVER_ERROR, "store-damaged", "store damaged"),
                StoreError::Refused(refusal) => refusal_kind(refusal),
            },
        }
    }

    fn retry_after_s(&self) -> Option<i64> {
        if let Self::TooManyFailures { wait_s } | Self::Busy { wait_s } = self {
            return Some(*wait_s);
        }
        let passes = matches!(self, Self::Timeout | Self::Store(StoreError::Unavailable(_)));
        passes.then_some(5)
    }

    /// Whether the rest of the body stays unread, so that the connection cannot be used again.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::BodyTooSlow | Self::BodyBroken(_) | Self::TooLarge { .. } | Self::Busy { .. } | Self::UnknownForm(_))
    }
}

fn refusal_kind(refusal: &Refusal) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match refusal {
        Refusal::UnknownEnrolment => (S::UNAUTHORIZED, "unknown-enrolment-token", "unknown enrolment token"),
        Refusal::EnrolmentExpired => (S::UNAUTHORIZED, "enrolment-expired", "enrolment token expired"),
        Refusal::EnrolmentUsedUp => (S::UNAUTHORIZED, "enrolment-used-up", "enrolment token used up"),
        Refusal::EnrolmentDiffers(_) => (S::CONFLICT, "enrolment-differs", "same enrolment, other content"),
        Refusal::UnknownDevice(_) => (S::UNAUTHORIZED, "unknown-device", "unknown device"),
        Refusal::DeviceRevoked => (S::UNAUTHORIZED, "device-revoked", "device revoked"),
        Refusal::TokenReplaced(_) => (S::CONFLICT, "token-replaced", "token replaced"),
        Refusal::NotEnrolled(_) => (S::FORBIDDEN, "not-enrolled", "not enrolled for the app"),
        Refusal::ClientTaken(_) => (S::CONFLICT, "client-taken", "client id taken"),
        Refusal::TooManyClients => (S::BAD_REQUEST, "too-many-databases", "too many databases"),
        Refusal::NotYours { .. } => (S::NOT_FOUND, "not-your-database", "not your database"),
        Refusal::WhichClient { .. } => (S::CONFLICT, "which-database", "which database?"),
        Refusal::WhichApp { .. } => (S::CONFLICT, "which-app", "which app?"),
        Refusal::EventDiffers(_) => (S::CONFLICT, "event-differs", "same event, other content"),
        Refusal::PublishRace(_) => (S::CONFLICT, "publish-race", "another publisher was first"),
        Refusal::NoApp(_) => (S::NOT_FOUND, "no-such-app", "no such app"),
        Refusal::NoClient(_) => (S::NOT_FOUND, "no-such-database", "no such database"),
        Refusal::BeyondLatest { .. } => (S::BAD_REQUEST, "not-published", "not published yet"),
        Refusal::Nothing { .. } => (S::NOT_FOUND, "no-such-thing", "no such thing"),
        Refusal::NotReported(_) => (S::CONFLICT, "not-reported", "unknown database"),
        Refusal::PushDiffers(_) => (S::CONFLICT, "push-differs", "same push, other content"),
        Refusal::FileWentBack { .. } => (S::CONFLICT, "file-went-back", "the file went back"),
        Refusal::SnapshotNeeded(_) => (S::CONFLICT, "snapshot-needed", "take a snapshot"),
        Refusal::SchemaAhead { .. } => (S::CONFLICT, "schema-ahead", "rows from the future"),
        Refusal::NoRowIds(_) => (S::CONFLICT, "no-row-ids", "rows cannot be exchanged"),
        Refusal::NameTaken(_) => (S::CONFLICT, "name-taken", "name taken"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind, title) = self.kind();
        if status.is_server_error() {
            error!("{kind}: {self}");
        }
        let problem = Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            remedy: self.remedy().sentence(),
            client_id: match &self {
                Self::Store(StoreError::Refused(Refusal::ClientTaken(client))) => Some(*client),
                _ => None,
            },
        };
        let body = serde_json::to_vec(&problem).expect("a problem has only texts and a number");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 11.6.1: a 401 names the scheme.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.ends_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Half a sentence about a secret in the wrong place.
fn mistaken(kind: &Option<Kind>) -> String {
    kind.map(|k| format!(" (it looks like {})", k.noun())).unwrap_or_default()
}
