//! A key-value store as one JSON file: `{"key": value, …}`, or a list of `{"key": …, "value": …}` with whatever else an
//! entry has (an expiry, metadata), as the bulk commands of key-value services write it. It is replaced as a whole: the new
//! file is written beside it, read back and compared, and then takes its place.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use whimbrel_shared::queue::KeyValue;

use super::KvError;

/// Largest dump that is read, in bytes: it is held in memory twice.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A dump, in memory.
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    /// The file as it was read.
    was: Vec<u8>,
    shape: Shape,
    /// Whether values stand there as JSON and not as texts of JSON.
    native: bool,
    /// Each key's entry as it stands there.
    entries: BTreeMap<String, Value>,
    /// Whether anything was kept that the file does not have.
    changed: bool,
    /// What entries were before they were changed, since it was last kept.
    undo: Vec<(String, Option<Value>)>,
}

/// How the file writes its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `{"key": value}`
    Object,
    /// `[{"key": …, "value": …}]`
    List,
}

impl Dump {
    pub(super) fn open(path: &Path) -> Result<Self, KvError> {
        let io = |source| KvError::Io { path: path.to_owned(), source };
        let bad = |why: String| KvError::NoDump { path: path.to_owned(), why };
        let size_bytes = fs::metadata(path).map_err(io)?.len();
        if size_bytes > MAX_BYTES {
            return Err(bad(format!("it has {size_bytes} bytes, more than {MAX_BYTES}")));
        }
        let was = fs::read(path).map_err(io)?;
        let (shape, entries) = match serde_json::from_slice(&was).map_err(|e| bad(e.to_string()))? {
            Value::Object(entries) => (Shape::Object, entries.into_iter().collect()),
            Value::Array(items) => {
                let mut entries = BTreeMap::new();
                for (index, item) in items.into_iter().enumerate() {
                    let key = item.get("key").and_then(Value::as_str).filter(|_| item.get("value").is_some());
                    let Some(key) = key.map(str::to_owned) else { return Err(bad(format!("entry {} has no key and value", index + 1))) };
                    if entries.insert(key.clone(), item).is_some() {
                        return Err(bad(format!("{key} is there twice")));
                    }
                }
                (Shape::List, entries)
            }
            _ => return Err(bad("it is neither an object nor a list".to_owned())),
        };
        let mut dump = Self { path: path.to_owned(), was, shape, native: false, entries, changed: false, undo: Vec::new() };
        dump.native = dump.entries.keys().any(|key| dump.value(key).is_some_and(|v| !v.is_string()));
        Ok(dump)
    }

    /// Replaces the file with what was kept, if anything changed.
    pub(super) fn save(mut self) -> Result<(), KvError> {
        self.forget();
        if !self.changed {
            return Ok(());
        }
        let document = match self.shape {
            Shape::Object => Value::Object(self.entries.into_iter().collect()),
            Shape::List => Value::Array(self.entries.into_values().collect()),
        };
        let path = self.path;
        let io = |source| KvError::Io { path: path.clone(), source };
        let text = serde_json::to_string_pretty(&document).expect("it came from JSON") + "\n";
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut beside = path.clone().into_os_string();
        beside.push(".whimbrel-new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside).map_err(io)?;
        let written = file
            .set_permissions(fs::metadata(&path).map_err(io)?.permissions())
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::read(&beside))
            .map_err(io);
        // Not what was meant to be there, or not what was read: the old file stays.
        let verdict = written.and_then(|read| {
            if read != text.as_bytes() || fs::read(&path).map_err(io)? != self.was { Err(KvError::Changed { path: path.clone() }) } else { Ok(()) }
        });
        if let Err(error) = verdict {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        fs::rename(&beside, &path).and_then(|()| File::open(directory)?.sync_all()).map_err(io)
    }

    fn set(&mut self, key: &str, entry: Option<Value>) {
        let before = match entry {
            Some(entry) => self.entries.insert(key.to_owned(), entry),
            None => self.entries.remove(key),
        };
        self.undo.push((key.to_owned(), before));
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let entry = self.entries.get(key)?;
        match self.shape {
            Shape::Object => Some(entry),
            Shape::List => entry.get("value"),
        }
    }
}

impl KeyValue for Dump {
    type Error = KvError;

    fn keys(&self, front: &str) -> Result<Vec<String>, KvError> {
        Ok(self.entries.range(front.to_owned()..).map(|(key, _)| key).take_while(|k| k.starts_with(front)).cloned().collect())
    }

    fn get(&self, key: &str) -> Result<Option<String>, KvError> {
        Ok(self.value(key).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }

    fn put(&mut self, key: &str, text: &str) -> Result<(), KvError> {
        let native = self.native.then(|| serde_json::from_str(text).ok()).flatten();
        let value = native.unwrap_or_else(|| Value::String(text.to_owned()));
        let entry = match (self.shape, self.entries.get(key).cloned()) {
            (Shape::Object, _) => value,
            (Shape::List, Some(mut entry)) => {
                entry["value"] = value;
                entry
            }
            (Shape::List, None) => Value::Object(Map::from_iter([("key".to_owned(), Value::from(key)), ("value".to_owned(), value)])),
        };
        self.set(key, Some(entry));
        Ok(())
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<(), KvError> {
        if let Some(mut entry) = self.entries.get(from).cloned() {
            if self.shape == Shape::List {
                entry["key"] = Value::from(to);
            }
            self.set(to, Some(entry));
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), KvError> {
        self.set(key, None);
        Ok(())
    }

    /// In memory only; see [`Dump::save`].
    fn keep(&mut self) -> Result<(), KvError> {
        self.changed |= !self.undo.is_empty();
        self.undo.clear();
        Ok(())
    }

    fn forget(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(entry) => drop(self.entries.insert(key, entry)),
                None => drop(self.entries.remove(&key)),
            }
        }
    }
}
