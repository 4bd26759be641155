//! Goldens of what is printed: `goldens/NAME` beside this file. `WHIMBREL_BLESS=1 cargo test -p whimbrel` writes them
//! anew; a changed `.json` golden is a changed promise.

use std::{fs, path::Path};

/// Fails unless `text` is the golden's.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/goldens").join(name);
    if std::env::var_os("WHIMBREL_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{name} differs; expected:\n{golden}\nprinted:\n{text}");
}
