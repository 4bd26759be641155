//! Migrations as a story writes them, as a publisher's folder, and as links for the server.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;
use whimbrel_shared::{
    manifest::Manifest,
    migration::{FORMAT, Link, Migration, TargetEntry},
    protocol::publish::{PublishLink, PublishRequest, SeedQueries},
};

/// One migration.
#[derive(Clone, Debug, Default)]
pub struct Mig {
    /// Its folder's name.
    pub name: String,
    /// `up.sql`.
    pub up: String,
    /// `down.sql`.
    pub down: Option<String>,
    /// `verify.sql`.
    pub verify: Option<String>,
    /// `migration.toml`.
    pub toml: Option<String>,
    /// Other files that it names.
    pub files: BTreeMap<String, String>,
}

impl Mig {
    /// One that goes up.
    pub fn up(name: &str, up: impl Into<String>) -> Self {
        Self { name: name.to_owned(), up: up.into(), ..Self::default() }
    }

    /// And down.
    pub fn down(mut self, down: impl Into<String>) -> Self {
        self.down = Some(down.into());
        self
    }

    /// And is verified.
    pub fn verify(mut self, verify: impl Into<String>) -> Self {
        self.verify = Some(verify.into());
        self
    }

    /// With settings.
    pub fn toml(mut self, toml: impl Into<String>) -> Self {
        self.toml = Some(toml.into());
        self
    }

    /// And has another file.
    pub fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.insert(name.to_owned(), text.into());
        self
    }

    /// Its settings, read.
    pub fn manifest(&self) -> Manifest {
        self.toml.as_deref().map_or_else(Manifest::default, |text| Manifest::parse(text).expect("the story's manifest is right"))
    }

    fn migration(&self) -> Migration {
        let mut files = BTreeMap::from([("up.sql".to_owned(), self.up.clone())]);
        files.extend(self.verify.clone().map(|text| ("verify.sql".to_owned(), text)));
        files.extend(self.down.clone().map(|text| ("down.sql".to_owned(), text)));
        files.extend(self.files.clone());
        let name = self.name.parse().expect("the story's name is right");
        Migration { format: FORMAT.to_owned(), name, manifest: self.manifest(), down: self.down.as_ref().map(|_| "down.sql".to_owned()), files }
    }
}

/// Writes them as a publisher's folder.
pub fn write(folder: &Path, chain: &[Mig]) {
    for mig in chain {
        let place = folder.join(&mig.name);
        std::fs::create_dir_all(&place).expect("a folder can be made");
        let files =
            [("up.sql", Some(&mig.up)), ("down.sql", mig.down.as_ref()), ("verify.sql", mig.verify.as_ref()), ("migration.toml", mig.toml.as_ref())];
        for (file, text) in files {
            if let Some(text) = text {
                std::fs::write(place.join(file), text).expect("a file can be written");
            }
        }
        for (file, text) in &mig.files {
            std::fs::write(place.join(file), text).expect("a file can be written");
        }
    }
}

/// As links, in order, nothing checked.
pub fn links(chain: &[Mig]) -> Vec<PublishLink> {
    let mut links: Vec<PublishLink> = Vec::new();
    for (version, mig) in (1..).zip(chain) {
        let migration = mig.migration();
        let body = String::from_utf8(migration.to_bytes()).expect("a migration is text");
        let previous = links.last().map(|l| l.target.digest());
        let link = Link::new(migration.name, version, previous);
        let seed = SeedQueries { timestamp: version.into(), up_queries: vec![mig.up.clone()], down_queries: Vec::from_iter(mig.down.clone()) };
        links.push(PublishLink { target: TargetEntry::new(body.as_bytes(), link), body, seed });
    }
    links
}

/// The request that publishes them.
pub fn request(app: &str, chain: &[Mig]) -> Value {
    let request = PublishRequest { app: app.parse().expect("the story's app is right"), links: links(chain), signed: None };
    serde_json::to_value(request).expect("a request is JSON")
}
