//! Several daemons on one file: one applies, none errors.

use whimbrel_tests::{Device, Server, chain, device::one, process::code, sample};

use crate::{SOON, stage};

const DAEMONS: usize = 8;

#[test]
fn of_eight_daemons_with_cloned_states_on_one_file_one_applies_and_none_errors() {
    eight(false);
}

#[test]
fn of_eight_daemons_with_one_shared_state_on_one_file_one_applies_and_none_errors() {
    eight(true);
}

fn eight(shared: bool) {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("chain", &chain::fifty(200));
    let token = server.token("chain");
    for trial in 0..sample(3, 20) {
        let file = stage.path().join(format!("trial{trial}.db"));
        let device = |name: &str| Device::new(stage.path(), name, &server.url()).database(file.to_str().unwrap(), "chain");
        let first = device(&format!("t{trial}d0"));
        first.make(file.to_str().unwrap(), "");
        first.enroll(&token);
        let mut devices: Vec<Device> = (1..DAEMONS)
            .map(|n| {
                let other = device(&format!("t{trial}d{n}"));
                if shared {
                    std::os::unix::fs::symlink(first.state(), other.state()).unwrap();
                } else {
                    copy(&first.state(), &other.state());
                }
                other
            })
            .collect();
        devices.push(first);
        let mut running: Vec<_> = devices.iter().map(Device::once_in_background).collect();
        let codes: Vec<i32> = running.iter_mut().map(|p| code(p.wait(SOON))).collect();
        let logs = || running.iter().map(|p| p.log()).collect::<String>();
        assert!(codes.iter().all(|c| [0, 3].contains(c)) && codes.contains(&0), "trial {trial}: exit codes {codes:?}\n{}", logs());
        let count = |sql: &str| one::<u32>(&file, sql);
        assert_eq!(count("SELECT count(*) FROM _whimbrel_event WHERE kind = 'completed'"), chain::LENGTH, "trial {trial}\n{}", logs());
        assert_eq!(count("SELECT count(*) FROM _whimbrel_event WHERE kind = 'started'"), 1, "trial {trial}: more than one began\n{}", logs());
        assert_eq!(count("SELECT count(*) FROM _whimbrel_event WHERE kind NOT IN ('started', 'completed')"), 0, "trial {trial}\n{}", logs());
        assert_eq!(count("SELECT count(*) FROM step WHERE version > 0"), chain::LENGTH - 2);
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}
