//! Names of the settings in `device.db`.

use whimbrel_shared::ids::{AppName, ClientId};

/// Address of the server that the device is enrolled with.
pub const SERVER: &str = "server";
/// How fast it has been: see `migrate::speed`.
pub const SPEED: &str = "speed";
/// Who the device is.
pub const DEVICE_ID: &str = "device_id";
/// What proves it.
pub const DEVICE_TOKEN: &str = "device_token";
/// Since when it has it, in milliseconds since 1970.
pub const TOKEN_SINCE_MS: &str = "token_since_ms";
/// The one that is to take its place, on the disk before the server hears of it.
pub const NEXT_TOKEN: &str = "next_token";
/// An enrolment that was asked for and not answered: its id, and the digest of what was asked.
pub const ENROLMENT: &str = "enrolment";
/// Apps that the device is enrolled for, with spaces between.
pub const APPS: &str = "apps";
/// ETag of the last poll: it survives restarts, so that an idle poll stays 304.
pub const POLL_ETAG: &str = "poll_etag";
/// Body of the last poll.
pub const POLL_BODY: &str = "poll_body";
/// Digest of the state that the server has.
pub const STATE_DIGEST: &str = "state_digest";
/// When it was sent.
pub const STATE_SENT_MS: &str = "state_sent_ms";
/// ETag of a seed server's list.
pub const PENDING_ETAG: &str = "pending_etag";

/// Digest of the targets metadata that was taken in whole.
pub fn targets(app: &AppName) -> String {
    format!("targets:{app}")
}

/// The application's build, as a person said it.
pub fn app_version(app: &AppName) -> String {
    format!("app_version:{app}")
}

/// Version of the application's SQLite library, as a person said it.
pub fn app_sqlite(app: &AppName) -> String {
    format!("app_sqlite:{app}")
}

/// Device and inode of a file that was found damaged, and is left alone.
pub fn damaged(path: &std::path::Path) -> String {
    format!("damaged:{}", path.display())
}

/// That a person had whimbrel leave a file, which is left alone from then on.
pub fn detached(path: &std::path::Path) -> String {
    format!("detached:{}", path.display())
}

/// What is remembered of a file that came here from another device, by the client id that it came with: see
/// `migrate/arrived.rs`.
pub fn arrived(client: ClientId) -> String {
    format!("arrived:{client}")
}

/// Which database a file was copied from, by the client id that it has now, and when it got that.
pub fn parted(client: ClientId) -> String {
    format!("parted:{client}")
}

/// When a database's tables were last looked through for what their triggers cannot see, in milliseconds since 1970.
pub fn looked_through(client: ClientId) -> String {
    format!("looked_through:{client}")
}

/// The restore that was begun last on a database, and the epoch that it had then: `REQUEST_ID EPOCH`.
pub fn restoring(client: ClientId) -> String {
    format!("restoring:{client}")
}

/// Largest timestamp that a seed server's migration had.
pub fn seed_timestamp(app: &AppName) -> String {
    format!("seed_timestamp:{app}")
}
