//! The keys that the server signs with by itself: found or made when it starts, never in its store.
//!
//! Three, so that each can be given another place later: a timestamp's key signs for everybody every week, a plan's for one
//! database at a time, and a document of the one can never be taken for one of the other.

use std::{
    env,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tracing::info;
use whimbrel_keys::{FileError, Passphrase, PemError, SigningKey, create_private, is_sealed, open, read_credential, read_private, seal};
use whimbrel_shared::{
    protocol::publish::OnlineKeys as PublicKeys,
    remedy::{Remedy, here},
};
use zeroize::Zeroizing;

/// Where systemd lays credentials (`LoadCredentialEncrypted=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Name of the credential with the passphrase.
const PASSPHRASE_CREDENTIAL: &str = "key-passphrase";
/// The passphrase, where there are no credentials.
const PASSPHRASE_VARIABLE: &str = "WHIMBREL_SERVER_KEY_PASSPHRASE";

/// The server's private keys.
#[derive(Debug)]
pub struct OnlineKeys {
    pub(crate) snapshot: SigningKey,
    pub(crate) timestamp: SigningKey,
    pub(crate) plan: SigningKey,
}

/// Why the keys cannot be used. The server does not start without them: it could not renew what devices wait for.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it.
    #[error("{path}: {source}", path = path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// The folder.
    #[error("the folder for keys {path} cannot be made: {source}", path = path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Some keys and not others.
    #[error("{path} is not there, and other keys are: new ones are made only where there are none", path = path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
}

impl OnlineError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::File(error) => error.remedy(),
            Self::Pem { source: PemError::NoPassphrase | PemError::WrongPassphrase, .. } => {
                here(format!("give the passphrase as the credential {PASSPHRASE_CREDENTIAL}, or in {PASSPHRASE_VARIABLE}"))
            }
            Self::Pem { source, .. } => source.remedy(),
            Self::Folder { .. } => here("make it, or name another with --keys"),
            Self::Missing { .. } => {
                here("restore it from the backup, or take all of them away: new ones are made then, and the next root has to name them")
            }
        }
    }
}

impl OnlineKeys {
    /// Those that systemd laid down as credentials, else those in `folder`, else new ones, kept in `folder` with mode 0600 and
    /// encrypted where there is a passphrase.
    pub fn load(folder: &Path) -> Result<Self, OnlineError> {
        let credentials = env::var_os(CREDENTIALS).map(PathBuf::from);
        let passphrase = || -> Result<Option<Passphrase>, OnlineError> {
            let credential = credentials.as_ref().map(|c| c.join(PASSPHRASE_CREDENTIAL)).filter(|path| path.exists());
            let text = match credential {
                Some(path) => Some(read_credential(&path)?),
                None => env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new),
            };
            Ok(text.and_then(|text| Passphrase::new(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))))
        };
        load(folder, credentials.as_deref(), passphrase()?)
    }

    /// The public halves, as a root has to name them.
    pub fn public(&self) -> PublicKeys {
        PublicKeys { snapshot: self.snapshot.public(), timestamp: self.timestamp.public(), plan: self.plan.public() }
    }
}

fn load(folder: &Path, credentials: Option<&Path>, passphrase: Option<Passphrase>) -> Result<OnlineKeys, OnlineError> {
    const NAMES: [&str; 3] = ["snapshot.pem", "timestamp.pem", "plan.pem"];
    let laid = |name: &str| credentials.map(|c| c.join(name)).filter(|path| path.exists());
    let none = NAMES.iter().all(|name| laid(name).is_none() && !folder.join(name).exists());
    if none {
        let no_folder = |source| OnlineError::Folder { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(no_folder)?;
        for name in NAMES {
            let key = SigningKey::generate();
            let pem = passphrase.as_ref().map_or_else(|| key.to_pem(), |words| seal(&key, words));
            create_private(&folder.join(name), &pem)?;
        }
        info!("new online keys are in {}; a root names them", folder.display());
    }
    let read = |name: &str| -> Result<SigningKey, OnlineError> {
        let (path, pem) = match laid(name) {
            Some(path) => (path.clone(), read_credential(&path)?),
            None => {
                let path = folder.join(name);
                if !path.exists() {
                    return Err(OnlineError::Missing { path });
                }
                (path.clone(), read_private(&path)?)
            }
        };
        let words = match (is_sealed(&pem), &passphrase) {
            (true, Some(words)) => Some(words),
            (true, None) | (false, _) => None,
        };
        open(&pem, words).map_err(|source| OnlineError::Pem { path, source })
    };
    let [snapshot, timestamp, plan] = NAMES.map(read);
    Ok(OnlineKeys { snapshot: snapshot?, timestamp: timestamp?, plan: plan? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn words(text: &str) -> Option<Passphrase> {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn keys_are_made_once_for_their_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("keys");
        let first = load(&folder, None, None).unwrap().public();
        assert_eq!(load(&folder, None, None).unwrap().public(), first);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
        std::fs::remove_file(folder.join("timestamp.pem")).unwrap();
        assert!(matches!(load(&folder, None, None), Err(OnlineError::Missing { .. })), "a lost key is no first start");
    }

    #[test]
    fn a_passphrase_seals_new_keys_and_opens_them_and_a_credential_goes_before_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let (folder, credentials) = (place.path().join("keys"), place.path().join("credentials"));
        let sealed = load(&folder, None, words("long and winding")).unwrap().public();
        assert!(is_sealed(&read_private(&folder.join("plan.pem")).unwrap()));
        assert_eq!(load(&folder, None, words("long and winding")).unwrap().public(), sealed);
        for wrong in [None, words("short")] {
            let error = load(&folder, None, wrong).unwrap_err();
            assert!(error.remedy().sentence().contains(PASSPHRASE_VARIABLE), "{error}");
        }
        load(&credentials, None, None).unwrap();
        std::fs::remove_file(credentials.join("plan.pem")).unwrap();
        // systemd's access list shows as a right of the group.
        std::fs::set_permissions(credentials.join("timestamp.pem"), std::fs::Permissions::from_mode(0o440)).unwrap();
        let mixed = load(&folder, Some(&credentials), words("long and winding")).unwrap().public();
        assert_eq!((mixed.plan == sealed.plan, mixed.timestamp == sealed.timestamp), (true, false));
    }
}
