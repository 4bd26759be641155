//! The only code that speaks HTTP. One narrow trait carries it, so that a simulated network can (DESIGN 14).

pub mod http;
pub mod repository;
pub mod server;
pub mod tls;

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use whimbrel_shared::{
    ids::ClientId,
    protocol::problem::{CLIENT_TAKEN, DEVICE_REVOKED, Problem},
    remedy::{Remedy, here, operator, wait},
};

/// A request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET`, `POST` or `PUT`.
    pub method: &'static str,
    /// The whole address.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: Bytes,
    /// Most bytes of the answer's body that are read; one more is an error.
    pub max_bytes: u64,
    /// Longest silence between two pieces of the answer.
    pub progress_timeout: Duration,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// `Date`.
    pub date: Option<String>,
    /// The body, at most `max_bytes`.
    pub body: Bytes,
}

/// The boxed future of [`Http::send`].
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, TransportError>> + Send + 'a>>;

/// What carries requests.
pub trait Http: Send + Sync {
    /// Sends one request and reads the whole answer.
    fn send(&self, request: HttpRequest) -> Sending<'_>;
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No answer.
    #[error("{url} cannot be reached: {why}")]
    Unreachable {
        /// Whom.
        url: String,
        /// Why.
        why: String,
    },
    /// The answer does not end.
    #[error("the answer of {url} is longer than the {max_bytes} bytes that are read")]
    TooLarge {
        /// Whom.
        url: String,
        /// The limit.
        max_bytes: u64,
    },
    /// The answer stopped in the middle.
    #[error("{url} sent nothing for {silence:?} in the middle of its answer")]
    Stalled {
        /// Whom.
        url: String,
        /// How long.
        silence: Duration,
    },
    /// The server refused, with its reason.
    #[error("{url} answered {status}: {}", problem.detail)]
    Refused {
        /// Whom.
        url: String,
        /// The status.
        status: u16,
        /// What it said.
        problem: Box<Problem>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the protocol says.
    #[error("the answer of {url} cannot be understood: {why}")]
    NotUnderstood {
        /// Whom.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server asked to be left alone for a while, and it is.
    #[error("the server asked not to be asked for another {left:.0?}")]
    AskedToWait {
        /// How long still.
        left: Duration,
    },
    /// A local mistake, such as a CA file that is none.
    #[error("{0}")]
    SetUp(String),
}

impl TransportError {
    /// The client id that the server says another device has; none for every other error.
    pub fn client_taken(&self) -> Option<ClientId> {
        match self {
            Self::Refused { status: 409, problem, .. } if problem.kind == CLIENT_TAKEN => problem.client_id,
            _ => None,
        }
    }

    /// The kind of a refusal, where it is one of those that a program acts on.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(&problem.kind),
            _ => None,
        }
    }

    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::AskedToWait { .. } => wait("it is asked again then"),
            Self::Unreachable { .. } | Self::Stalled { .. } => wait("it is tried again by itself, and as soon as the network changes"),
            Self::TooLarge { .. } | Self::NotUnderstood { .. } => {
                operator("the server, or something in front of it, answers wrongly; nothing was taken from it")
            }
            Self::Refused { problem, .. } if problem.kind == DEVICE_REVOKED => {
                here("ask the operator why; with a new token from them, `whimbrel enroll URL --token TOKEN` lets this device in again")
            }
            Self::Refused { status: 401, .. } => {
                here("enrol this device again: `whimbrel enroll URL --token TOKEN`, with a new token from the operator")
            }
            Self::Refused { problem, .. } if !problem.remedy.is_empty() => operator(problem.remedy.clone()),
            Self::Refused { .. } => wait("it is tried again by itself"),
            Self::SetUp(_) => here("correct the configuration"),
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::AskedToWait { left } => Some(*left),
            Self::Unreachable { .. } | Self::TooLarge { .. } | Self::Stalled { .. } | Self::NotUnderstood { .. } | Self::SetUp(_) => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::AskedToWait { .. }
            | Self::Unreachable { .. }
            | Self::TooLarge { .. }
            | Self::Stalled { .. }
            | Self::NotUnderstood { .. }
            | Self::SetUp(_) => None,
        }
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date, which counts from `now_ms`. Pure.
pub fn retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = chrono::DateTime::parse_from_rfc2822(value.trim()).ok()?;
    Some(Duration::from_millis(u64::try_from(at.timestamp_millis() - now_ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", 0), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946_684_798_000), Some(Duration::from_secs(1)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 999_999_999_000), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", 0), None);
    }
}
