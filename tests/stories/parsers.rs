//! Every input that is kept for the fuzzer goes through its reader in the ordinary tests, and so does each of them cut off at
//! every length and with each byte changed.

// The fuzzer takes it as a library.
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
#[path = "../../fuzz/parsers.rs"]
mod fuzzed;

use std::{fs, path::Path};

use whimbrel_shared::{
    packed,
    protocol::{pull::PullHead, push::PushResponse},
};

use fuzzed::PARSERS;

/// The inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> =
        entries.map(|entry| entry.unwrap()).map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect();
    found.sort();
    found
}

#[test]
fn every_reader_of_outside_bytes_survives_what_is_kept_for_the_fuzzer_and_what_is_near_it() {
    let mut dice = fastrand::Rng::with_seed(7);
    for (target, parser) in PARSERS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 2, "{target} has {} inputs", inputs.len());
        for (name, bytes) in inputs {
            let step = if std::env::var_os("WHIMBREL_NIGHT").is_some() { 1 } else { bytes.len() / 200 + 1 };
            let tried = std::panic::catch_unwind(|| parser(&bytes));
            assert!(tried.is_ok(), "{target}/{name}");
            for at in (0..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[at] ^= dice.u8(1..);
                for near in [&bytes[..at], &changed] {
                    let tried = std::panic::catch_unwind(|| parser(near));
                    assert!(tried.is_ok(), "{target}/{name}, at {at}: {}", String::from_utf8_lossy(near));
                }
            }
        }
    }
}

#[test]
fn the_fuzzer_has_a_target_for_each_reader_and_a_true_example_of_each_form() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), PARSERS.len());
    for (target, _) in PARSERS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
    }
    // An example that nothing can read shows the reader nothing.
    let reads = |target: &str, read: &dyn Fn(&[u8]) -> bool| {
        assert!(corpus(target).iter().any(|(_, bytes)| read(bytes)), "{target} has no true example");
    };
    reads("answers", &|b| serde_json::from_slice::<whimbrel_shared::protocol::poll::PollResponse>(b).is_ok());
    reads("answers", &|b| serde_json::from_slice::<PushResponse>(b).is_ok());
    reads("packed_pages", &|b| packed::unpack_rows::<PullHead>(b).is_ok_and(|(_, rows)| !rows.is_empty()));
    reads("packed_pages", &|b| packed::unpack_changes::<serde_json::Value>(b).is_ok_and(|(_, changes)| !changes.is_empty()));
    reads("migration_body", &|b| whimbrel_shared::migration::Migration::from_bytes(b).is_ok());
    reads("manifest", &|b| whimbrel_shared::manifest::Manifest::parse(std::str::from_utf8(b).unwrap()).is_ok());
    reads("configuration", &|b| whimbrel::config::Config::parse(Path::new("/c.toml"), std::str::from_utf8(b).unwrap(), |_| None).is_ok());
    reads("control_requests", &|b| serde_json::from_slice::<whimbrel::control::protocol::Request>(b).is_ok());
    reads("targets", &|b| {
        serde_json::from_slice::<whimbrel_shared::migration::Targets>(b).is_ok_and(|t| t.targets.len() > 1 && whimbrel::trust::judge(&[], &t).is_ok())
    });
    reads("seed_form", &|b| serde_json::from_slice::<Vec<whimbrel_shared::migration::SeedMigration>>(b).is_ok_and(|list| list.len() > 1));
    reads("server_requests", &|b| serde_json::from_slice::<whimbrel_shared::protocol::state::StateRequest>(b).is_ok());
}
