//! Which database a request speaks for that may leave it out. Pure.

use whimbrel_shared::ids::{AppName, ClientId};

use crate::store::{ClientRef, Refusal};

/// The database that a request without a client id speaks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// This one.
    To(ClientRef),
    /// One that does not exist yet, of this app.
    New(AppName),
}

/// Which of a device's databases is meant.
pub(crate) fn bind(clients: &[ClientRef], apps: &[AppName], wanted: Option<ClientId>) -> Result<Bound, Refusal> {
    let ids = || clients.iter().map(|c| c.client_id).collect();
    match (wanted, clients, apps) {
        (Some(id), _, _) => {
            clients.iter().find(|c| c.client_id == id).map(|c| Bound::To(c.clone())).ok_or_else(|| Refusal::NotYours { client_id: id, yours: ids() })
        }
        (None, [one], _) => Ok(Bound::To(one.clone())),
        (None, [], [app]) => Ok(Bound::New(app.clone())),
        (None, [], _) => Err(Refusal::WhichApp { apps: apps.to_vec() }),
        (None, _, _) => Err(Refusal::WhichClient { clients: ids() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u128) -> ClientRef {
        ClientRef { client_id: ClientId::from_dice(n), app: "notes".parse().unwrap() }
    }

    #[test]
    fn a_device_with_one_database_needs_no_client_id() {
        let apps: Vec<AppName> = ["notes", "tasks"].map(|a| a.parse().unwrap()).to_vec();
        let check = |clients: &[ClientRef], apps: &[AppName], wanted: Option<u128>| bind(clients, apps, wanted.map(ClientId::from_dice));
        let (one, two) = (client(1), client(2));
        let both = [one.clone(), two.clone()];
        assert_eq!(check(&both[..1], &apps, None), Ok(Bound::To(one)));
        assert_eq!(check(&both, &apps, Some(2)), Ok(Bound::To(two)));
        assert_eq!(check(&[], &apps[..1], None), Ok(Bound::New(apps[0].clone())));
        assert!(matches!(check(&[], &apps, None), Err(Refusal::WhichApp { .. })));
        assert!(matches!(check(&both, &apps, None), Err(Refusal::WhichClient { .. })));
        assert!(matches!(check(&both, &apps, Some(3)), Err(Refusal::NotYours { .. })));
    }
}
