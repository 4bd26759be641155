//! `whimbrel enroll`: an enrolment token becomes a device token, kept in `device.db`.

use std::{path::Path, sync::Arc};

use whimbrel_shared::{
    ids::{AppName, DeviceId, Digest, EnrolmentId},
    protocol::enroll::EnrollRequest,
    remedy::{Remedy, here},
};

use crate::{
    ambient::Ambient,
    config::{Config, check_server},
    store::{StoreError, device::DeviceStore, settings},
    transport::{
        TransportError,
        http::{Reqwest, Route},
        server::{Credential, Server},
    },
    trust::{self, PinError},
};

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Who the device is now.
    pub device_id: DeviceId,
    /// The app it may ask for.
    pub app: AppName,
    /// The server.
    pub server: String,
}

/// Why it did not work. Nothing was changed on the device.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The address cannot be used.
    #[error("{url:?}: {why}")]
    BadUrl {
        /// As given.
        url: String,
        /// Why not.
        why: String,
    },
    /// The configuration names another server.
    #[error("the configuration says server = {configured:?}, and this enrols with {asked:?}")]
    OtherServer {
        /// In the configuration.
        configured: String,
        /// As given.
        asked: String,
    },
    /// The server did not take it.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The root is not one that can be pinned.
    #[error("the root that was given: {0}")]
    Root(PinError),
    /// `device.db` could not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnrollError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::BadUrl { .. } => here("give the address that the operator gave, such as https://updates.example.com"),
            Self::OtherServer { .. } => here("correct one of the two"),
            Self::Transport(TransportError::Refused { problem, .. }) if problem.kind == "/problems/unknown-device" => {
                here("the server does not know this device's token: `whimbrel enroll URL --as-new` makes it another device for the server")
            }
            Self::Transport(TransportError::Refused { status: 401 | 403, .. }) => {
                here("ask the operator for a new enrolment token (`whimbrel-server token create`)")
            }
            Self::Transport(TransportError::Unreachable { .. }) => here("check the address and the network, then run it again"),
            Self::Transport(error) => error.remedy(),
            Self::Root(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
        }
    }
}

/// Exchanges `token` at `url`. A device that is enrolled already adds the token's app and stays who it is, unless it enrols
/// `as_new`: then the server gets to know it anew. `root`, a file, is pinned for that app; where it is of another app nothing
/// is kept.
pub async fn enroll(config: &Config, url: &str, token: &str, root: Option<&Path>, as_new: bool) -> Result<Enrolled, EnrollError> {
    // Before the token is spent.
    let root = root.map(trust::read_root).transpose().map_err(EnrollError::Root)?;
    let url = url.trim_end_matches('/').to_owned();
    check_server(&url, config.insecure_http).map_err(|why| EnrollError::BadUrl { url: url.clone(), why })?;
    if let Some(configured) = &config.server
        && *configured != url
    {
        return Err(EnrollError::OtherServer { configured: configured.clone(), asked: url });
    }
    let mut store = DeviceStore::open(&config.state_dir)?;
    let same_server = !as_new && store.setting(settings::SERVER)?.is_none_or(|s| s == url);
    let known = |key| if same_server { store.setting(key) } else { Ok(None) };
    let mut request = EnrollRequest {
        enrolment_id: None,
        token: token.trim().to_owned(),
        device_id: known(settings::DEVICE_ID)?.and_then(|id| id.parse().ok()),
        device_token: known(settings::DEVICE_TOKEN)?,
        name: host_name(),
        daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    request.enrolment_id = Some(enrolment_id(&store, &url, &request)?);
    let http = Arc::new(Reqwest::new(&Route {
        ca_file: config.ca_file.as_deref(),
        client_cert: config.client_cert.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        proxy: config.proxy.as_deref(),
        insecure_http: config.insecure_http,
    })?);
    let response = Server::new(http, url.clone(), Credential::None, Ambient::real()).enroll(&request).await;
    if let Err(TransportError::Refused { status: 409, .. }) = &response {
        // The server knows the id with other content: it is of no more use.
        store.set_setting(settings::ENROLMENT, None)?;
    }
    let response = response?;
    if let Some(root) = &root {
        trust::pin(&store, &response.app, root, Ambient::real().now_ms()).map_err(EnrollError::Root)?;
    }
    store.atomically(|store| {
        store.set_setting(settings::SERVER, Some(&url))?;
        let apps = if same_server { store.setting(settings::APPS)?.unwrap_or_default() } else { String::new() };
        if !apps.split(' ').any(|a| a == response.app.as_str()) {
            store.set_setting(settings::APPS, Some(format!("{apps} {}", response.app).trim()))?;
        }
        store.set_setting(settings::DEVICE_ID, Some(&response.device_id.to_string()))?;
        if store.setting(settings::DEVICE_TOKEN)?.as_ref() != Some(&response.device_token) {
            store.set_setting(settings::DEVICE_TOKEN, Some(&response.device_token))?;
            store.set_setting(settings::TOKEN_SINCE_MS, Some(&Ambient::real().now_ms().to_string()))?;
            store.set_setting(settings::NEXT_TOKEN, None)?;
        }
        store.set_setting(settings::ENROLMENT, None)?;
        // What was learnt as somebody else is asked again.
        store.set_setting(settings::POLL_ETAG, None)?;
        store.set_setting(settings::STATE_DIGEST, None)
    })?;
    Ok(Enrolled { device_id: response.device_id, app: response.app, server: url })
}

/// The id of this wish: that of the same one before, if its answer did not arrive. Kept before it is sent.
fn enrolment_id(store: &DeviceStore, url: &str, request: &EnrollRequest) -> Result<EnrolmentId, StoreError> {
    let asked = Digest::of(format!("{url} {}", request.content()).as_bytes()).to_string();
    let kept = store.setting(settings::ENROLMENT)?;
    let again = kept.as_deref().and_then(|kept| kept.split_once(' ')).filter(|(_, before)| *before == asked);
    if let Some(id) = again.and_then(|(id, _)| id.parse().ok()) {
        return Ok(id);
    }
    let id = EnrolmentId::from_dice(Ambient::real().dice());
    store.set_setting(settings::ENROLMENT, Some(&format!("{id} {asked}")))?;
    Ok(id)
}

fn host_name() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).map(|n| n.trim().chars().take(100).collect()).unwrap_or_default()
}
