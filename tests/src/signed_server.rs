//! A server in the hands of a test: it serves a repository that the test signs, and says in its poll what the test wants.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use whimbrel_shared::{
    ids::{ClientId, DeviceId, Digest},
    protocol::poll::{Order, Plan, PollResponse, RepositoryHead, SignedHead},
};

use crate::{http::Message, tuf_place::TufPlace, tuf_repository::TufRepository};

/// The app of the repository.
pub const APP: &str = "notes";

struct State {
    clients: Vec<ClientId>,
    order: Option<Order>,
    newest: u32,
    head: RepositoryHead,
    plan_seq: u64,
    polls: u32,
}

/// The server.
pub struct SignedServer {
    /// Its repository: what is changed there is served after [`SignedServer::serve`].
    pub repository: TufRepository,
    /// Where it is.
    pub place: TufPlace,
    state: Arc<Mutex<State>>,
}

impl SignedServer {
    /// Serves a repository of [`APP`] without migrations, signed at `now_ms`, and allows all that is published.
    pub fn start(now_ms: i64) -> Self {
        let repository = TufRepository::new(Some(APP), now_ms);
        let state = Arc::new(Mutex::new(State { clients: Vec::new(), order: None, newest: 0, head: head(&repository), plan_seq: 1, polls: 0 }));
        let inner = state.clone();
        let place = TufPlace::with_api(&repository, Arc::new(move |request| api(&mut lock(&inner), request)));
        Self { repository, place, state }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// Serves the repository as it is now, and says so in the poll.
    pub fn serve(&self) {
        self.place.serve(&self.repository);
        let mut state = lock(&self.state);
        state.head = head(&self.repository);
        state.newest = u32::try_from(self.repository.targets.len()).expect("they are few");
    }

    /// Publishes the next migration.
    pub fn publish(&mut self) {
        self.repository.add_migration();
        self.repository.sign_targets();
        self.serve();
    }

    /// What its plans allow from now on.
    pub fn order(&self, order: Order) {
        let mut state = lock(&self.state);
        state.order = Some(order);
        state.plan_seq += 1;
    }

    /// How often it was polled.
    pub fn polls(&self) -> u32 {
        lock(&self.state).polls
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head(repository: &TufRepository) -> RepositoryHead {
    let version = repository.versions["targets"];
    RepositoryHead {
        version,
        digest: Digest::of(&repository.files[&format!("{version}.targets.json")]),
        signed: Some(SignedHead {
            root_version: repository.versions["root"],
            timestamp: String::from_utf8_lossy(&repository.files["timestamp.json"]).into_owned(),
        }),
    }
}

fn api(state: &mut State, request: &Message) -> Option<Vec<u8>> {
    let path = request.first.split(' ').nth(1).unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let answer = match path.as_str() {
        "/api/enroll" => json!({
            "device_id": DeviceId::from_dice(7), "device_token": "whd_of_a_test", "app": APP, "protocol": whimbrel_shared::PROTOCOL,
        }),
        "/api/state" => {
            let databases = body["databases"].as_array().cloned().unwrap_or_default();
            state.clients = databases.iter().filter_map(|d| d["client_id"].as_str()?.parse().ok()).collect();
            json!({})
        }
        "/api/poll" => {
            state.polls += 1;
            let app: whimbrel_shared::ids::AppName = APP.parse().expect("it is a name");
            let order = state.order.unwrap_or(Order::ApplyUpTo { version: state.newest });
            let plan_seq = state.plan_seq + u64::from(state.newest);
            let plan = |client_id: &ClientId| Plan { client_id: *client_id, app: app.clone(), plan_seq, order };
            let poll = PollResponse {
                signed_plans: Vec::new(),
                protocol: whimbrel_shared::PROTOCOL,
                plans: state.clients.iter().map(plan).collect(),
                repository: [(app.clone(), state.head.clone())].into(),
            };
            serde_json::to_value(poll).expect("a poll has text keys")
        }
        "/api/migrations/status" => {
            let ids: Vec<Value> = body["reports"].as_array().into_iter().flatten().map(|r| r["event_id"].clone()).collect();
            json!({"success": true, "acknowledged": ids})
        }
        _ => return None,
    };
    Some(answer.to_string().into_bytes())
}
