//! The next root, from the one before and what is to change. Pure.

use whimbrel_shared::{
    ids::AppName,
    protocol::publish::OnlineKeys,
    tuf::{KeyId, PublicKey, Role, RoleKeys, Root, Time, root::Roles},
};

use super::SignError;

/// What changes from one root to the next.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Keys that may sign roots from now on.
    pub add_root: Vec<PublicKey>,
    /// How many of them have to.
    pub root_threshold: Option<u32>,
    /// Keys that may sign migrations from now on.
    pub add_publishers: Vec<PublicKey>,
    /// How many of them have to.
    pub publisher_threshold: Option<u32>,
    /// Keys that have no say any more, whatever they were for.
    pub remove: Vec<KeyId>,
    /// How long it is good, in milliseconds; none: as long as a root is by default.
    pub lasts_ms: Option<i64>,
}

/// The root that follows `before`, unsigned. The server's keys are those in `online`; keys that no role has are left out.
pub fn draft(app: &AppName, before: Option<&Root>, changes: &Changes, online: &OnlineKeys, now_ms: i64) -> Result<Root, SignError> {
    if let Some(before) = before.filter(|b| b.app != *app) {
        return Err(SignError::Draft(format!("the root before it is of the app {}, and this is {app}", before.app)));
    }
    let mut roles = before.map_or_else(Roles::default, |b| b.roles.clone());
    let mut keys = before.map(|b| b.keys.clone()).unwrap_or_default();
    for id in &changes.remove {
        let had = Role::ALL.into_iter().any(|role| roles.of(role).keyids.contains(id));
        if !had {
            return Err(SignError::Draft(format!("the key {id} is not in the root")));
        }
        Role::ALL.into_iter().for_each(|role| _ = roles.of_mut(role).keyids.remove(id));
    }
    for (role, added, threshold) in
        [(Role::Root, &changes.add_root, changes.root_threshold), (Role::Targets, &changes.add_publishers, changes.publisher_threshold)]
    {
        for key in added {
            if changes.remove.contains(&key.id()) {
                return Err(SignError::Draft(format!("the key {} is both added and removed", key.id())));
            }
            keys.insert(key.id(), *key);
            roles.of_mut(role).keyids.insert(key.id());
        }
        let role_keys = roles.of_mut(role);
        role_keys.threshold = threshold.unwrap_or(role_keys.threshold.max(1));
        if role_keys.keyids.is_empty() {
            let flag = if role == Role::Root { "--root-key" } else { "--publisher-key" };
            return Err(SignError::Draft(format!("nobody could sign {role}.json: name at least one key with {flag}")));
        }
    }
    let alone = |key: PublicKey| RoleKeys { keyids: [key.id()].into(), threshold: 1 };
    roles.snapshot = alone(online.snapshot);
    roles.timestamp = alone(online.timestamp);
    let plan = alone(online.plan);
    keys.extend([online.snapshot, online.timestamp, online.plan].map(|key| (key.id(), key)));
    let named = |id: &KeyId| plan.keyids.contains(id) || Role::ALL.into_iter().any(|role| roles.of(role).keyids.contains(id));
    keys.retain(|id, _| named(id));
    // A person's key that is also the server's would let a stolen server sign what people sign.
    for role in [Role::Root, Role::Targets] {
        if let Some(id) = roles.of(role).keyids.iter().find(|id| [online.snapshot, online.timestamp, online.plan].iter().any(|k| k.id() == **id)) {
            return Err(SignError::Draft(format!("the key {id} is the server's; it cannot sign {role}.json too")));
        }
    }
    let version = before.map_or(0, |b| b.version).saturating_add(1);
    let expires = Time::from_ms(now_ms.saturating_add(changes.lasts_ms.unwrap_or_else(|| Role::Root.lasts_ms())));
    let root = Root { app: app.clone(), version, expires, consistent_snapshot: true, keys, roles, plan: Some(plan) };
    root.check()?;
    Ok(root)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        whimbrel_keys::SigningKey::from_seed(&[n; 32]).public()
    }

    pub(crate) fn online() -> OnlineKeys {
        OnlineKeys { snapshot: key(100), timestamp: key(101), plan: key(102) }
    }

    #[test]
    fn a_root_follows_another_with_what_was_changed_and_nothing_else() {
        let app: AppName = "notes".parse().unwrap();
        let first = Changes {
            add_root: vec![key(1), key(2), key(3)],
            root_threshold: Some(2),
            add_publishers: vec![key(9)],
            lasts_ms: Some(1_000),
            ..Changes::default()
        };
        let one = draft(&app, None, &first, &online(), 0).unwrap();
        assert_eq!((one.version, one.expires.as_ms(), one.keys.len()), (1, 1_000, 7));
        let two = draft(&app, Some(&one), &Changes::default(), &online(), 0).unwrap();
        assert_eq!((two.version, &two.roles, &two.keys), (2, &one.roles, &one.keys));

        let rotate = Changes { remove: vec![key(9).id()], add_publishers: vec![key(10)], ..Changes::default() };
        let three = draft(&app, Some(&two), &rotate, &online(), 0).unwrap();
        assert!(three.keys.contains_key(&key(10).id()) && !three.keys.contains_key(&key(9).id()));
        assert_eq!(three.roles.root, one.roles.root);
        let elsewhere = OnlineKeys { timestamp: key(111), ..online() };
        let moved = draft(&app, Some(&three), &Changes::default(), &elsewhere, 0).unwrap();
        assert!(!moved.keys.contains_key(&key(101).id()), "a key that nobody names any more is gone");
    }

    #[test]
    fn changes_that_make_no_root_are_refused() {
        let app: AppName = "notes".parse().unwrap();
        let first = Changes { add_root: vec![key(1)], add_publishers: vec![key(9)], ..Changes::default() };
        let one = draft(&app, None, &first, &online(), 0).unwrap();
        let refused = |changes: Changes, says: &str| {
            let error = draft(&app, Some(&one), &changes, &online(), 0).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(Changes { remove: vec![key(1).id()], ..Changes::default() }, "--root-key");
        refused(Changes { remove: vec![key(5).id()], ..Changes::default() }, "is not in the root");
        refused(Changes { root_threshold: Some(2), ..Changes::default() }, "2 signatures of 1 keys");
        refused(Changes { add_publishers: vec![key(101)], ..Changes::default() }, "is the server's");
        refused(Changes { add_root: vec![key(5)], remove: vec![key(5).id(), key(1).id()], ..Changes::default() }, "is not in the root");
        assert!(draft(&"other".parse().unwrap(), Some(&one), &Changes::default(), &online(), 0).is_err());
    }
}
