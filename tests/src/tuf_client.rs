//! A TUF client that is the daemon's own verifier over its own store, without the daemon around it. The public conformance
//! suite drives it through `whimbrel-tuf-client`; stories drive it here, where they hold the clock.

use std::{fs, path::PathBuf, sync::Arc};

use whimbrel::{
    store::{device::DeviceStore, trust::Files},
    transport::{
        Http,
        http::{Reqwest, Route},
        repository::Mirror,
        server::Credential,
    },
    trust::{
        catch_up::{Caught, Disbelief, Standing, catch_up, keep},
        tuf,
    },
};
use whimbrel_shared::ids::AppName;

/// The app under which the suite's repositories are kept: they know of none.
const APP: &str = "conformance";

/// A client whose `device.db` lies in `folder`.
pub struct TufClient {
    /// Where its store is, and where the trusted metadata is shown as files.
    pub folder: PathBuf,
    /// The app that documents have to name; none where they name none.
    pub app: Option<AppName>,
}

impl TufClient {
    /// A client that asks documents for no app.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), app: None }
    }

    /// Its store.
    pub fn store(&self) -> anyhow::Result<DeviceStore> {
        Ok(DeviceStore::open(&self.folder.join("state"))?)
    }

    /// The app under which it keeps.
    pub fn kept_as(&self) -> AppName {
        self.app.clone().unwrap_or_else(|| APP.parse().expect("it is a name"))
    }

    /// `init`: believes a root. Asks nobody.
    pub fn init(&self, root: &[u8], now_ms: i64) -> anyhow::Result<()> {
        tuf::root_version(root)?;
        let store = self.store()?;
        store.pin(&self.kept_as(), root, now_ms)?;
        self.show(&Files::from([("root.json".to_owned(), root.to_vec())]))
    }

    /// `refresh`: catches up with the first of the repositories at `urls` that is believed.
    pub async fn refresh(&self, urls: &[String], now_ms: i64) -> anyhow::Result<Caught> {
        let http: Arc<dyn Http> = Arc::new(Reqwest::new(&Route::default())?);
        let mirrors: Vec<_> = urls.iter().map(|url| Mirror::new(http.clone(), url, url, Credential::None)).collect();
        self.refresh_from(&mirrors, now_ms).await
    }

    async fn refresh_from(&self, mirrors: &[Mirror], now_ms: i64) -> anyhow::Result<Caught> {
        let (mut store, app) = (self.store()?, self.kept_as());
        let standing = Standing::of(&app, store.kept(&app)?)?;
        let caught = catch_up(standing, self.app.as_ref(), mirrors, now_ms).await?;
        keep(&mut store, &app, &caught, None)?;
        self.show(&store.kept(&app)?.files)?;
        Ok(caught)
    }

    /// `download`: refreshes, then finds each target, verifies it and writes it into `into`. One that lies there already is
    /// not fetched again.
    pub async fn download(&self, url: &str, targets_url: &str, names: &[String], into: &std::path::Path, now_ms: i64) -> anyhow::Result<()> {
        let http: Arc<dyn Http> = Arc::new(Reqwest::new(&Route::default())?);
        let mirror = Mirror::new(http, url, targets_url, Credential::None);
        let mut caught = self.refresh_from(&[mirror], now_ms).await?;
        caught.outcome?;
        let client = &mut caught.client;
        let result = async {
            for name in names {
                let target = client.find(name, now_ms).await?.ok_or_else(|| anyhow::anyhow!("nobody answers for {name}"))?;
                // One flat folder, whatever the name is.
                let path = into.join(
                    name.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect::<String>(),
                );
                if fs::read(&path).is_ok_and(|bytes| client.is_target(name, &target, &bytes)) {
                    continue;
                }
                fs::write(&path, client.download(name, &target).await?)?;
            }
            Ok(())
        }
        .await;
        // Roles that were delegated to, for the suite to look at.
        self.show(&client.files())?;
        result
    }

    /// Writes the trusted metadata as files with unversioned names, for the suite to look at.
    fn show(&self, files: &Files) -> anyhow::Result<()> {
        for (name, bytes) in files.iter().filter(|(name, _)| !name.contains('/')) {
            fs::write(self.folder.join(name), bytes)?;
        }
        Ok(())
    }
}

/// The word for why nothing was believed; `believed` where it was.
pub fn word(caught: &anyhow::Result<Caught>) -> String {
    match caught {
        Ok(caught) => caught.outcome.as_ref().err().map_or("believed", Disbelief::code).to_owned(),
        Err(error) => match error.downcast_ref::<Disbelief>() {
            Some(disbelief) => disbelief.code().to_owned(),
            None => format!("{error:#}"),
        },
    }
}
