//! Which databases a person means: by path, by file name, or by the beginning of the client id. The daemon decides
//! by the same rule; here it only chooses what is shown.

use std::path::Path;

use crate::control::protocol::{DatabaseView, Selector};

/// Fewer characters of a client id say too little.
const SHORTEST_ID: usize = 4;

/// What goes to the daemon. A relative path is relative to where the person is, not to where the daemon runs.
pub(super) fn selector(database: Option<&str>) -> Selector {
    Selector(database.map(|text| {
        let relative = text.contains('/') && Path::new(text).is_relative();
        let absolute = relative.then(|| std::path::absolute(text).ok()).flatten();
        absolute.map_or_else(|| text.to_owned(), |p| p.to_string_lossy().into_owned())
    }))
}

/// Whether `database`, as [`selector`] made it, means this one; none means all.
pub(super) fn means(database: Option<&str>, view: &DatabaseView) -> bool {
    let Some(text) = database else { return true };
    view.path.as_os_str() == text
        || view.path.file_name().is_some_and(|n| n == text)
        || (text.len() >= SHORTEST_ID && view.client_id.is_some_and(|c| c.to_string().starts_with(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    #[test]
    fn a_database_is_meant_by_path_file_name_or_the_beginning_of_its_id() {
        let a = &fixture::snapshot().databases[0];
        let id = a.client_id.unwrap().to_string();
        for text in [None, Some("a.db"), Some("/var/lib/notes/a.db"), Some(&id[..8]), Some(&id)] {
            assert!(means(text, a), "{text:?}");
        }
        for text in ["b.db", "notes/a.db", "a", &id[..3]] {
            assert!(!means(Some(text), a), "{text}");
        }
    }

    #[test]
    fn a_relative_path_is_relative_to_the_person() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(selector(Some("./x/a.db")).0.unwrap(), here.join("x/a.db").to_string_lossy());
        assert_eq!(selector(Some("a.db")), Selector(Some("a.db".to_owned())));
        assert_eq!(selector(None), Selector(None));
    }
}
