//! `POST /api/sync/push`: rows that a database changed, and what became of each.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    change::Change,
    hlc::Clock,
    ids::{BadId, ClientId, Digest, PushId},
    packed,
    value::{Value, ValueHash},
};

/// Largest push as JSON, in bytes: BLOBs are twice as long there.
pub const MAX_PUSH_JSON_BYTES: usize = 4 * crate::change::MAX_PAGE_BYTES;
/// Most bytes of values in an answer: what would go beyond is answered with [`Answer::Later`].
pub const MAX_ANSWER_BYTES: usize = crate::change::MAX_PAGE_BYTES;

/// What a number of a row's version or a cursor counts in: a space, and how often its count began anew (a restored store).
/// Numbers of two series cannot be compared. On the wire `"3.1"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// Number of the space at this server.
    pub space: u64,
    /// From 1.
    pub epoch: u32,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.space, self.epoch)
    }
}

impl FromStr for Series {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let parts = text.split_once('.').and_then(|(space, epoch)| Some(Self { space: space.parse().ok()?, epoch: epoch.parse().ok()? }));
        parts.filter(|s| s.to_string() == text).ok_or_else(|| BadId::new("series", text, "it is two numbers, such as 3.1"))
    }
}

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Series {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// The highest number that a file was ever told, or was given for what it wrote, and what it counts in: a store that never gave it
/// was restored. On the wire `"3.1.57"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reached {
    /// What it counts in.
    pub series: Series,
    /// The number.
    pub number: u64,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.series, self.number)
    }
}

impl FromStr for Reached {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let parts = text.rsplit_once('.').and_then(|(series, number)| Some(Self { series: series.parse().ok()?, number: number.parse().ok()? }));
        parts.filter(|r| r.to_string() == text).ok_or_else(|| BadId::new("number of a series", text, "it is a series and a number, such as 3.1.57"))
    }
}

impl Serialize for Reached {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reached {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// What stands before the changes of a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHead {
    /// The same one until it is answered. With other content it is refused.
    pub push_id: PushId,
    /// The database.
    pub client_id: ClientId,
    /// How often its file went back to an older state, from 1.
    pub epoch: u32,
    /// Grows with every new push of this epoch: a file that went back unnoticed is found by it.
    pub order: u64,
    /// The version whose columns the changes name.
    pub schema: u32,
    /// What their bases count in; none where the file has seen nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// How far the file knows the space's sequence, whatever of it counts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

/// A push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRequest {
    /// Who and when.
    #[serde(flatten)]
    pub head: PushHead,
    /// Each row at most once. They are taken in this order: parents first, where a person looks on.
    pub changes: Vec<Change>,
}

impl PushRequest {
    /// What its id is bound to: every table, key, column, value, base and clock in it, in whatever form they came.
    pub fn content(&self) -> Digest {
        Digest::of(&packed::plain_changes(&self.head, &self.changes))
    }
}

/// What became of a push. A row that is not named in `answers` is accepted as it was sent, and known: the change at place
/// `i` has the version `first + i` now, and nothing of its row was changed by others since it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResponse {
    /// The push.
    pub push_id: PushId,
    /// Digest of what is answered: [`PushRequest::content`]. It stands for the value of every column that was sent.
    pub content: Digest,
    /// What versions count in.
    pub series: Series,
    /// The server's time, in milliseconds since 1970.
    pub now_ms: i64,
    /// The version of the change at place 0, and so on.
    pub first: u64,
    /// Changes whose clocks were more than a minute ahead, and were set to the server's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restamped: u32,
    /// The latest clock of what stands against this push: who lands the answer advances past it, as past a row's.
    #[serde(default, skip_serializing_if = "is_start")]
    pub newest: Clock,
    /// What is otherwise, by ascending place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<(u32, Answer)>,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_start(clock: &Clock) -> bool {
    *clock == Clock::ZERO
}

/// What became of a change that was not simply accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Accepted; others changed other columns of the row meanwhile, or it needed no change. What the file has seen of the
    /// row stays as it was until the next pull brings it.
    Behind,
    /// Some of it lost against what the server has; a conflict is kept there.
    Merged {
        /// The row's version, if the file knows the row once it has landed `stands`; else the next pull brings it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
        /// The columns in which the server's value stands, by id; all of the row's where a deletion lost; none: the row is
        /// deleted.
        stands: Option<Vec<(u32, Value)>>,
    },
    /// There is another row under that key, and neither is touched.
    KeyTaken,
    /// The row was deleted and this edit may stand, but not without its other columns: send all of them.
    SendWhole {
        /// Their base.
        seen: u64,
    },
    /// Nothing of it was taken.
    Rejected(Reason),
    /// Kept at the server for a person to look at, and not written: the version of this schema cannot say what it means in
    /// the newer one. Send it again from that one.
    Held {
        /// The oldest version that can.
        min_schema: u32,
    },
    /// Not looked at: the answer had no room for more. Send it again.
    Later,
}

/// Why nothing of a change was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Another row of the space has the values of a unique set. Kept as a conflict.
    UniqueTaken {
        /// The set's columns, by id.
        columns: Vec<u32>,
        /// The other row's key.
        key: Vec<Value>,
    },
    /// It cannot be a change of that table at that version.
    Impossible {
        /// Why.
        why: String,
    },
}

/// A change with its answer: what a client clears, and only where the value is still the one with that hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<'a> {
    /// What was sent.
    pub change: &'a Change,
    /// The row's version where it was accepted and the file knows it.
    pub version: Option<u64>,
    /// What is otherwise.
    pub answer: Option<&'a Answer>,
}

impl Answered<'_> {
    /// Its columns with the hashes of the values that were sent.
    pub fn sent(&self) -> Vec<(u32, ValueHash)> {
        self.change.sent()
    }
}

/// Why an answer is not the answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Of something else.
    #[error("the server answered another push, or other content, than was sent")]
    NotThis,
    /// It names places that are not there.
    #[error("the answer names the change at place {0}, which was not sent or is named twice")]
    Place(u32),
}

impl PushResponse {
    /// Each change of the push that this answers, with its answer. Nothing may be cleared on an error; nor of a row of which
    /// the file has pulled version `first` or a later one, landed or not: such an answer came late, the row has moved on, and
    /// its change is sent again in a new push.
    pub fn of<'a>(&'a self, push: &'a PushRequest) -> Result<Vec<Answered<'a>>, BadAnswer> {
        if self.push_id != push.head.push_id || self.content != push.content() {
            return Err(BadAnswer::NotThis);
        }
        let mut after = None;
        for (place, _) in &self.answers {
            if after.is_some_and(|after| after >= *place) || *place as usize >= push.changes.len() {
                return Err(BadAnswer::Place(*place));
            }
            after = Some(*place);
        }
        let mut answers = self.answers.iter().peekable();
        let answered = |(at, change): (usize, &'a Change)| {
            let answer = answers.next_if(|(place, _)| *place as usize == at).map(|(_, answer)| answer);
            let version = match answer {
                None => Some(self.first + at as u64),
                Some(Answer::Merged { version, .. }) => *version,
                Some(_) => None,
            };
            Answered { change, version, answer }
        };
        Ok(push.changes.iter().enumerate().map(answered).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Edit;

    fn push(rows: i64) -> PushRequest {
        let head =
            PushHead { push_id: PushId::from_dice(1), client_id: ClientId::from_dice(2), epoch: 1, order: 1, schema: 1, series: None, reached: None };
        let change = |key| Change { table: 1, key: vec![Value::Integer(key)], edit: Edit::Deleted { base: 3, clock: Clock::ZERO } };
        PushRequest { head, changes: (0..rows).map(change).collect() }
    }

    fn response(to: &PushRequest, answers: Vec<(u32, Answer)>) -> PushResponse {
        let series = Series { space: 1, epoch: 1 };
        PushResponse { push_id: to.head.push_id, content: to.content(), series, now_ms: 0, first: 10, restamped: 0, newest: Clock::ZERO, answers }
    }

    #[test]
    fn an_answer_clears_only_what_it_answers() {
        let push = push(3);
        let good = response(&push, vec![(1, Answer::KeyTaken)]);
        let versions: Vec<_> = good.of(&push).unwrap().iter().map(|a| (a.version, a.answer.is_some())).collect();
        assert_eq!(versions, [(Some(10), false), (None, true), (Some(12), false)]);
        let mut changed = push.clone();
        changed.changes[2].key = vec![Value::Integer(9)];
        assert_eq!(good.of(&changed), Err(BadAnswer::NotThis));
        assert_eq!(response(&push, vec![(3, Answer::Behind)]).of(&push), Err(BadAnswer::Place(3)));
        assert_eq!(response(&push, vec![(1, Answer::Behind), (1, Answer::Behind)]).of(&push), Err(BadAnswer::Place(1)));
    }

    #[test]
    fn the_wire_of_today() {
        let answers = vec![
            (0, Answer::Merged { version: None, stands: Some(vec![(2, Value::text("a"))]) }),
            (1, Answer::Rejected(Reason::UniqueTaken { columns: vec![2], key: vec![Value::Integer(8)] })),
            (2, Answer::Held { min_schema: 4 }),
        ];
        let push = push(3);
        let mut response = response(&push, answers);
        response.content = Digest::of(b"");
        let golden = concat!(
            r#"{"push_id":"00000000-0000-4000-8000-000000000001","#,
            r#""content":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","series":"1.1","now_ms":0,"first":10,"#,
            r#""answers":[[0,{"answer":"merged","stands":[[2,"a"]]}],"#,
            r#"[1,{"answer":"rejected","reason":"unique_taken","columns":[2],"key":[8]}],[2,{"answer":"held","min_schema":4}]]}"#
        );
        assert_eq!(serde_json::to_string(&response).unwrap(), golden);
        assert_eq!(serde_json::from_str::<PushResponse>(golden).unwrap(), response);
        let golden = concat!(
            r#"{"push_id":"00000000-0000-4000-8000-000000000001","client_id":"00000000-0000-4000-8000-000000000002","#,
            r#""epoch":1,"order":1,"schema":1,"changes":[{"table":1,"key":[0],"edit":{"deleted":{"base":3,"clock":0}}}]}"#
        );
        let one = PushRequest { changes: push.changes[..1].to_vec(), ..push };
        assert_eq!(serde_json::to_string(&one).unwrap(), golden);
        assert_eq!(serde_json::from_str::<PushRequest>(golden).unwrap(), one);
        for bad in ["1", "1.", "01.1", "1.1.1", "-1.1"] {
            assert!(bad.parse::<Series>().is_err(), "{bad}");
        }
    }
}
