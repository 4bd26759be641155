//! `POST /api/roots` and `GET /api/trust/{app}`, and the server's own signatures as time goes by.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, extract::State, response::Response};
use tracing::{error, info, warn};
use whimbrel_shared::{
    ids::AppName,
    protocol::publish::{RootRequest, Signed, TrustResponse},
    tuf::{Envelope, Role, Root, SignedTargets, Time},
};

use super::{
    App,
    answer::{self, InPath},
};
use crate::{
    decide::signed::{self, SignedError},
    online::OnlineKeys,
    problem::ApiError,
    secrets::Scope,
    store::{
        Key, StoreError,
        signed::{Kept, Repository, Signing},
    },
};

/// A root in JSON, with room for its escapes.
const MAX_ROOT_BYTES: usize = 2 * 1024 * 1024;

impl App {
    pub(super) fn online(&self) -> Result<&OnlineKeys, SignedError> {
        self.online.as_ref().ok_or(SignedError::NoOnlineKeys)
    }
}

/// The root that is stored.
pub(super) fn stored_root(repository: &Repository) -> Result<Root, StoreError> {
    let damaged = |e| StoreError::Damaged(format!("root version {}: {e}", repository.root.version));
    Envelope::read::<Root>(&repository.root.bytes).map(|(_, root)| root).map_err(damaged)
}

pub(super) async fn roots(State(app): State<Arc<App>>, key: Key, body: Body) -> Result<Response, ApiError> {
    key.may(Scope::Publish)?;
    let request: RootRequest = answer::json(body, MAX_ROOT_BYTES, "roots").await?;
    let online = app.online()?;
    let now_ms = app.now_ms();
    let name = request.root.document::<Root>().map_err(SignedError::from)?.app;
    let repository = app.store.repository(name.clone()).await?;
    let trusted = repository.as_ref().map(stored_root).transpose()?;
    // Sent twice is there once.
    let known = repository.as_ref().is_some_and(|r| r.root.bytes == request.root.to_bytes());
    if !known {
        let (envelope, root) = signed::accept_root(&request.root, trusted.as_ref(), online, now_ms)?;
        let mut files = vec![Kept::new(&root, envelope.to_bytes())];
        if let Some(targets) = repository.as_ref().and_then(|r| r.targets.as_ref()) {
            files.extend(signed::fresh(&root, targets, repository.as_ref(), online, now_ms)?);
        }
        let by = Some((key.name.clone(), "root".to_owned()));
        let decided_on = repository.as_ref().map(Repository::mark).unwrap_or_default();
        app.store.sign(Signing { app: name.clone(), decided_on, files, by, now_ms }).await?;
        info!("{} uploaded root version {} of {name}", key.name, root.version);
    }
    answer::answer(&standing(&app, &name).await?)
}

pub(super) async fn trust(State(app): State<Arc<App>>, key: Key, InPath(name): InPath<String>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    answer::answer(&standing(&app, &answer::id(&name)?).await?)
}

async fn standing(app: &App, name: &AppName) -> Result<TrustResponse, ApiError> {
    let online = app.online()?;
    let mut response = TrustResponse { online: online.public(), root: None, revert_floor: None, expires: BTreeMap::new(), alarms: Vec::new() };
    if let Some(repository) = app.store.repository(name.clone()).await? {
        let root = stored_root(&repository)?;
        let damaged = |e| StoreError::Damaged(format!("{name}: {e}"));
        response.alarms = signed::alarms(&repository, &root, online, app.now_ms());
        if let Some(targets) = &repository.targets {
            response.revert_floor = Envelope::read::<SignedTargets>(&targets.bytes).map_err(damaged)?.1.revert_floor;
        }
        response.root = Some(Envelope::read::<Root>(&repository.root.bytes).map_err(damaged)?.0);
        let all = [Some(repository.root), repository.targets, repository.snapshot, repository.timestamp];
        let line = |k: Kept| (k.role.word().to_owned(), Signed { version: k.version, expires: Time::from_ms(k.expires_at_ms) });
        response.expires = all.into_iter().flatten().map(line).collect();
    }
    Ok(response)
}

/// Signs anew what is due in every app, and says what a person has to look at.
pub(crate) async fn renew(app: &App) {
    let Ok(online) = app.online() else { return };
    let apps = match app.store.signed_apps().await {
        Ok(apps) => apps,
        Err(e) => return error!("signatures cannot be renewed: {e}"),
    };
    for name in apps {
        match renew_one(app, online, &name).await {
            Ok(alarms) => alarms.iter().for_each(|alarm| warn!("{alarm}")),
            Err(e) => error!("the signatures of {name} cannot be renewed: {e}"),
        }
    }
}

async fn renew_one(app: &App, online: &OnlineKeys, name: &AppName) -> Result<Vec<String>, ApiError> {
    let Some(repository) = app.store.repository(name.clone()).await? else {
        return Ok(Vec::new());
    };
    let root = stored_root(&repository)?;
    let now_ms = app.now_ms();
    let alarms = signed::alarms(&repository, &root, online, now_ms);
    if let Some(targets) = repository.targets.as_ref().filter(|_| signed::is_due(&repository, now_ms)) {
        let files = signed::fresh(&root, targets, Some(&repository), online, now_ms)?.to_vec();
        let ends = files.iter().find(|f| f.role == Role::Timestamp).map_or(0, |f| f.expires_at_ms);
        app.store.sign(Signing { app: name.clone(), decided_on: repository.mark(), files, by: None, now_ms }).await?;
        info!("the timestamp of {name} is good until {}", Time::from_ms(ends));
    }
    Ok(alarms)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use whimbrel_keys::SigningKey;
    use whimbrel_shared::tuf::{Document, RoleKeys, SignedTargets, Timestamp, root::Roles};

    use super::*;
    use crate::store::{Store, sqlite::SqliteStore};

    const DAY_MS: i64 = 86_400_000;

    fn sign<D: Document>(document: &D, key: &SigningKey) -> Kept {
        let mut envelope = Envelope::new(document).unwrap();
        let signature = key.sign(&envelope.payload());
        envelope.add(&key.public(), signature);
        Kept::new(document, envelope.to_bytes())
    }

    #[test]
    fn signatures_are_renewed_at_half_of_their_life_and_what_hinders_it_is_an_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("whimbrel.db")).unwrap();
        let online = OnlineKeys::load(&folder.path().join("keys")).unwrap();
        let name: AppName = "notes".parse().unwrap();
        let person = SigningKey::from_seed(&[1; 32]);
        let alone = |key: whimbrel_shared::tuf::PublicKey| RoleKeys { keyids: [key.id()].into(), threshold: 1 };
        let public = online.public();
        let keys = [person.public(), public.snapshot, public.timestamp].map(|k| (k.id(), k)).into();
        let roles = Roles {
            root: alone(person.public()),
            targets: alone(person.public()),
            snapshot: alone(public.snapshot),
            timestamp: alone(public.timestamp),
        };
        let expires = Time::from_ms(1_000 * DAY_MS);
        let root = Root { app: name.clone(), version: 1, expires, consistent_snapshot: true, keys, roles, plan: None };
        let targets = SignedTargets { app: name.clone(), version: 1, expires, revert_floor: None, targets: BTreeMap::new() };
        let clock = Arc::new(AtomicI64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let files = vec![sign(&root, &person), sign(&targets, &person)];
            let signing = Signing { app: name.clone(), decided_on: Default::default(), files, by: None, now_ms: 0 };
            store.sign(signing.clone()).await.unwrap();
            assert!(store.sign(signing).await.is_err(), "decided on something that is no more");
            let hands = clock.clone();
            let app = App::new(Box::new(store), Box::new(move || hands.load(Relaxed)), Some(online));
            let at = async |day: i64| {
                clock.store(day * DAY_MS, Relaxed);
                let alarms = renew_one(&app, app.online().unwrap(), &name).await.unwrap();
                let kept = app.store.metadata(name.clone(), Role::Timestamp, None).await.unwrap().unwrap();
                let (_, timestamp) = Envelope::read::<Timestamp>(&kept.bytes).unwrap();
                assert_eq!(kept.expires_at_ms, timestamp.expires.as_ms());
                (timestamp.version, timestamp.expires.as_ms() / DAY_MS, alarms)
            };
            let (first, until, alarms) = at(100).await;
            assert_eq!((until, alarms.len()), (114, 1), "{alarms:?}");
            assert_eq!(at(106).await, (first, 114, Vec::new()), "it is not due yet");
            let (second, until, _) = at(107).await;
            assert_eq!((second > first, until), (true, 121));
            // Nobody renewed it for nine days: said before it is mended, and mended at once.
            let (_, until, alarms) = at(116).await;
            assert!(alarms.iter().any(|a| a.contains("could not be renewed")), "{alarms:?}");
            assert_eq!(until, 130);
            // People's documents end too.
            let (_, _, alarms) = at(950).await;
            assert_eq!(alarms.iter().filter(|a| a.contains("expires at")).count(), 2, "{alarms:?}");
            // A server that lost its keys cannot sign, and says so; what there is stays.
            let other = OnlineKeys::load(&folder.path().join("others")).unwrap();
            clock.store(960 * DAY_MS, Relaxed);
            assert!(renew_one(&app, &other, &name).await.unwrap_err().to_string().contains("does not name this server's snapshot key"));
            for _ in 0..20 {
                clock.fetch_add(8 * DAY_MS, Relaxed);
                renew_one(&app, app.online().unwrap(), &name).await.unwrap();
            }
            let oldest = app.store.metadata(name.clone(), Role::Timestamp, Some(first)).await.unwrap();
            assert_eq!(oldest, None, "old ones are not kept for ever");
            assert!(app.store.metadata(name.clone(), Role::Root, Some(1)).await.unwrap().is_some());
        });
    }
}
