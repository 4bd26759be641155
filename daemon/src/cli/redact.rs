//! What may leave the machine: paths become file names, names of users and of the home go. Pure.

use serde_json::Value;

/// What stands for what was taken out.
const GONE: &str = "…";

/// What must not leave.
#[derive(Clone, Debug, Default)]
pub(super) struct Redaction {
    /// Whole paths that are known: they may hold spaces, so they are looked for as they are. Longest first.
    paths: Vec<(String, String)>,
    /// Names of people and of the machine.
    names: Vec<String>,
}

impl Redaction {
    /// Of these paths and names. A name of fewer than three characters would take away half the text.
    pub(super) fn new(paths: impl IntoIterator<Item = String>, names: impl IntoIterator<Item = String>) -> Self {
        let mut paths: Vec<_> = paths.into_iter().filter(|p| p.len() > 1).map(|p| (p.clone(), short(&p))).collect();
        paths.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        Self { paths, names: names.into_iter().filter(|n| n.chars().count() >= 3).collect() }
    }

    /// Every text in a document.
    pub(super) fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|v| self.value(v)),
            Value::Object(fields) => fields.values_mut().for_each(|v| self.value(v)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// One text.
    pub(super) fn text(&self, text: &str) -> String {
        let known = self.paths.iter().fold(text.to_owned(), |t, (path, short)| t.replace(path, short));
        let unknown = shorten_paths(&known);
        self.names.iter().fold(unknown, |t, name| without_word(&t, name))
    }
}

/// `…/notes.db` of `/home/jane/notes.db`.
fn short(path: &str) -> String {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    format!("{GONE}/{name}")
}

/// Shortens whatever looks like an absolute path; addresses (`https://…`) stay.
fn shorten_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let begins = before.is_none_or(|c| c.is_whitespace() || "\"'`(=<[{,;:".contains(c)) && !rest[at..].starts_with("//");
        let end = rest[at..].find(|c: char| c.is_whitespace() || "\"'`)>]},;:".contains(c)).map_or(rest.len(), |n| at + n);
        out.push_str(&rest[..at]);
        let word = &rest[at..end];
        if begins && word.matches('/').count() > 1 {
            out.push_str(&short(word));
        } else {
            out.push_str(word);
        }
        rest = &rest[end..];
    }
    out + rest
}

/// Takes a word out wherever it stands alone, so that the user `ann` does not spoil `annotations`.
fn without_word(text: &str, word: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
    while let Some(at) = rest.find(word) {
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let after = rest[at + word.len()..].chars().next();
        out.push_str(&rest[..at]);
        out.push_str(if inside(before) || inside(after) { word } else { GONE });
        rest = &rest[at + word.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_file_names_and_people_nobody() {
        let r = Redaction::new(
            ["/home/jane doe/app data/notes.db".to_owned(), "/home/jane doe".to_owned()],
            ["jane doe".into(), "jane".into(), "ab".into()],
        );
        for (text, expected) in [
            ("/home/jane doe/app data/notes.db", "…/notes.db"),
            ("cannot open /home/jane doe/app data/notes.db: busy", "cannot open …/notes.db: busy"),
            ("\"/srv/x/y.db\" belongs to jane", "\"…/y.db\" belongs to …"),
            ("https://updates.example.com/api/poll answers", "https://updates.example.com/api/poll answers"),
            ("0004_tags/up.sql, line 2", "0004_tags/up.sql, line 2"),
            ("state=/var/lib/whimbrel/", "state=…/whimbrel"),
            ("janet stays, jane goes", "janet stays, … goes"),
            ("1/2 of ab", "1/2 of ab"),
        ] {
            assert_eq!(r.text(text), expected);
        }
    }

    #[test]
    fn every_text_of_a_document_is_looked_at() {
        let mut value = serde_json::json!({"a": ["/x/y/z", 1, null], "b": {"c": "/x/y/z"}});
        Redaction::default().value(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["…/z", 1, null], "b": {"c": "…/z"}}));
    }
}
