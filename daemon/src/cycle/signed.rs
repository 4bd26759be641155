//! What is accepted of signed repositories, and what is wrong with what is trusted. A server, or somebody in front of it, that
//! shows something unsigned, old or mixed is named, and nothing of it is taken; what was accepted before still runs.

use std::collections::BTreeSet;

use whimbrel_shared::{
    ids::{AppName, Digest},
    protocol::{
        poll::PollResponse,
        state::{HealthItem, Severity},
    },
    remedy::here,
};

use super::{Core, advance::enrolled};
use crate::{
    config::Trust,
    migrate::gate::item,
    store::{StoreError, settings},
    transport::{
        TransportError,
        repository::Mirror,
        server::{Credential, Server},
    },
    trust::{
        self, AcceptError,
        catch_up::{Caught, Disbelief, Standing, catch_up, chain_of, judge_signed, keep},
        clock,
        tuf::TufError,
    },
};

/// The code of damage.
const DAMAGED: &str = "trust_damaged";

impl Core {
    /// The clock is behind what it cannot be behind. `accepted_ms`: [`crate::store::device::DeviceStore::newest_accepted_ms`].
    pub fn clock_suspect(&self, accepted_ms: Option<i64>) -> Option<HealthItem> {
        let behind = clock::now(self.shared.ambient.now_ms(), accepted_ms, clock::built_ms()).behind_ms?;
        Some(item(
            "clock_suspect",
            Severity::Warning,
            format!("the clock is at least {} behind: signatures are judged by the latest time that is known", span(behind)),
            here("set the clock; nothing waits for it"),
        ))
    }

    fn trusted_now(&self) -> Result<clock::Now, StoreError> {
        Ok(clock::now(self.shared.ambient.now_ms(), self.shared.store().newest_accepted_ms()?, clock::built_ms()))
    }

    fn trusted_apps(&self) -> Result<BTreeSet<AppName>, StoreError> {
        let apps = self.shared.store().setting(settings::APPS)?;
        Ok(self.config.databases.iter().map(|rule| rule.app.clone()).filter(|app| enrolled(apps.as_deref(), app)).collect())
    }

    /// Shows what is wrong with what is kept, whether or not the server can be reached.
    pub(super) fn look_at_trust(&mut self) -> Result<(), StoreError> {
        if self.config.trust != Trust::Tuf {
            return Ok(());
        }
        for app in self.trusted_apps()? {
            let kept = self.shared.store().kept(&app)?;
            match Standing::of(&app, kept) {
                Err(disbelief) => self.disbelieve(&app, &disbelief),
                Ok(standing) if !standing.damage.is_empty() => self.damaged(&app, &standing.damage),
                Ok(_) if !trust::proof_is_whole(&self.shared.store(), &app)? => {
                    self.damaged(&app, &["the newest proof is not what was kept".to_owned()])
                }
                // What a server did stays said until it is asked again.
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn damaged(&mut self, app: &AppName, damage: &[String]) {
        let message = format!("what is trusted of {app} is damaged, and no new migration is accepted: {}", damage.join("; "));
        let remedy = here(
            "connect to the server: it is built anew from the pinned root, at the versions that were verified before. If it stays, look at the disk",
        );
        self.show(app, item(DAMAGED, Severity::Error, message, remedy));
    }

    fn disbelieve(&mut self, app: &AppName, disbelief: &Disbelief) {
        let severity = if matches!(disbelief, Disbelief::Tuf { source: TufError::Transport(_), .. }) { Severity::Warning } else { Severity::Error };
        self.show(app, item(disbelief.code(), severity, format!("{app}: {disbelief}"), disbelief.remedy()));
    }

    /// Shows what is wrong, in place of what was wrong before; damage stays beside it until it is healed.
    fn show(&mut self, app: &AppName, shown: HealthItem) {
        let items = self.server.trust.entry(app.clone()).or_default();
        if items.iter().any(|known| known.code == shown.code && known.message == shown.message) {
            return;
        }
        match shown.severity {
            Severity::Error => tracing::error!(app = %app, "{}", shown.message),
            Severity::Warning | Severity::Info => tracing::warn!(app = %app, "{}", shown.message),
        }
        items.retain(|known| (known.code == DAMAGED) != (shown.code == DAMAGED));
        items.push(shown);
    }

    /// Accepts what the publishers have signed and we have not, and takes back what they no longer list. The timestamp that is
    /// kept has to be fresh at every poll, whatever the poll says.
    pub(super) async fn accept_signed(&mut self, server: &Server, poll: &PollResponse) -> Result<Result<(), TransportError>, StoreError> {
        let mut first_error = Ok(());
        let mut apps = self.trusted_apps()?;
        apps.extend(poll.repository.keys().cloned());
        for app in apps {
            let head = poll.repository.get(&app);
            let head = Digest::of(&serde_json::to_vec(&head).expect("a poll has text keys")).to_string();
            let now_ms = self.trusted_now()?.ms;
            let kept = self.shared.store().kept(&app)?;
            let standing = match Standing::of(&app, kept) {
                Ok(standing) => standing,
                Err(disbelief) => {
                    self.disbelieve(&app, &disbelief);
                    continue;
                }
            };
            let taken = self.shared.store().setting(&settings::targets(&app))?;
            let fresh = standing.fresh_until_ms().is_some_and(|until| until >= now_ms);
            let whole = standing.damage.is_empty() && trust::proof_is_whole(&self.shared.store(), &app)?;
            if taken.as_deref() == Some(&head) && fresh && whole {
                self.server.trust.remove(&app);
                continue;
            }
            let mut mirrors = vec![server.repository(&app)];
            mirrors.extend(self.config.mirrors.iter().map(|url| {
                let base = format!("{url}/repository/{app}");
                Mirror::new(self.http.clone(), &base, &format!("{base}/targets"), Credential::None)
            }));
            // One app's trouble does not keep the others waiting.
            match self.take_signed(&app, standing, &mirrors, now_ms).await? {
                Ok(()) => {
                    self.server.trust.remove(&app);
                    self.shared.store().set_setting(&settings::targets(&app), Some(&head))?;
                }
                Err(NotTaken::Disbelief(Disbelief::Tuf { source: TufError::Transport(error), .. })) if is_about_the_server(&error) => {
                    first_error = first_error.and(Err(error));
                }
                // A repository that fails keeps no rows from travelling.
                Err(NotTaken::Disbelief(disbelief)) => self.disbelieve(&app, &disbelief),
                Err(NotTaken::Accept(error)) => self.alarm(&app, &error),
            }
        }
        Ok(first_error)
    }

    async fn take_signed(&mut self, app: &AppName, standing: Standing, mirrors: &[Mirror], now_ms: i64) -> Result<Result<(), NotTaken>, StoreError> {
        let caught = match catch_up(standing, Some(app), mirrors, now_ms).await {
            Ok(caught) => caught,
            Err(disbelief) => return Ok(Err(disbelief.into())),
        };
        let offered = match &caught.outcome {
            Ok(verified) => chain_of(app, &verified.listing),
            Err(_) => {
                keep(&mut self.shared.store(), app, &caught, None)?;
                return Ok(Err(caught.outcome.expect_err("it is one").into()));
            }
        };
        let accepted = self.shared.store().entries(app)?;
        let judged = offered.map_err(NotTaken::from).and_then(|offered| judge_signed(&accepted, &offered).map_err(|e| NotTaken::Accept(e.into())));
        keep(&mut self.shared.store(), app, &caught, judged.as_ref().ok())?;
        self.chains.remove(app);
        let judged = match judged {
            Ok(judged) => judged,
            Err(why) => return Ok(Err(why)),
        };
        if !caught.damage().is_empty() {
            tracing::warn!(app = %app, "what is trusted was built anew from the pinned root");
        }
        for entry in &judged.withdrawn {
            tracing::warn!(app = %app, migration = %entry.custom.name, "the publisher no longer lists it: it does not run here");
        }
        for entry in &judged.new {
            let body = match fetched(&caught, &entry.path()).await {
                Ok(body) => body,
                Err(source) => return Ok(Err(Disbelief::Tuf { url: mirrors[0].url().to_owned(), source }.into())),
            };
            let proof = caught.proof().expect("the refresh succeeded");
            // One by one and in order: what arrived stays, however long the rest takes.
            let kept = trust::accept_proven(&mut self.shared.store(), app, entry, &body, proof, now_ms);
            self.chains.remove(app);
            match kept {
                Ok(()) => {}
                Err(AcceptError::Store(error)) => return Err(error),
                Err(error) => return Ok(Err(NotTaken::Accept(error))),
            }
        }
        Ok(Ok(()))
    }
}

async fn fetched(caught: &Caught, path: &str) -> Result<Vec<u8>, TufError> {
    let target = caught.client.listed(path).ok_or_else(|| TufError::NotThere { what: path.to_owned() })?;
    caught.client.download(path, &target).await
}

/// Whether nothing else can be had from the server either.
fn is_about_the_server(error: &TransportError) -> bool {
    matches!(error, TransportError::Unreachable { .. } | TransportError::AskedToWait { .. }) || error.retry_after().is_some()
}

/// Why nothing, or not all, was taken.
enum NotTaken {
    /// The repository is not believed.
    Disbelief(Disbelief),
    /// It is believed, and contradicts what was accepted.
    Accept(AcceptError),
}

impl From<Disbelief> for NotTaken {
    fn from(disbelief: Disbelief) -> Self {
        Self::Disbelief(disbelief)
    }
}

/// Milliseconds for people.
fn span(ms: i64) -> String {
    match ms / 60_000 {
        minutes if minutes < 120 => format!("{minutes} minutes"),
        minutes if minutes < 48 * 60 => format!("{} hours", minutes / 60),
        minutes => format!("{} days", minutes / (24 * 60)),
    }
}
