//! The way to the server: whose certificate is believed, what a device proves itself with, proxies, and plain HTTP.

use std::{fs, os::unix::fs::PermissionsExt};

use whimbrel_tests::{
    Device, Mig, Server,
    device::one,
    host,
    tls::{Authority, Proxy, TlsDoor},
};

use crate::{SOON, stage};

fn device(stage: &std::path::Path, name: &str, url: &str) -> Device {
    let device = Device::new(stage, name, url).database("notes.db", "notes");
    device.make("notes.db", "CREATE TABLE notes(id INTEGER PRIMARY KEY)");
    device
}

/// Whether a migration came to it.
fn served(device: &Device) -> bool {
    one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'") == 1
}

fn published(stage: &std::path::Path) -> Server {
    let server = Server::start(stage);
    server.publish("notes", &[Mig::up("0001_more", "CREATE TABLE more(x);")]);
    server
}

#[test]
fn a_servers_certificate_is_believed_where_its_authority_is_named_and_not_otherwise() {
    if !host::has("openssl") {
        return;
    }
    let stage = stage();
    let server = published(stage.path());
    let authority = Authority::new(&stage.path().join("ca"));
    let door = TlsDoor::open(&authority, server.addr(), false);
    let token = server.token("notes");
    let stranger = device(stage.path(), "stranger", &door.url());
    stranger.run(&["enroll", &door.url(), "--token", &token]).says(75, &["UnknownIssuer"]);
    let other = Authority::new(&stage.path().join("other"));
    let misled = device(stage.path(), "misled", &door.url()).setting(&format!("ca_file = {:?}", other.certificate()));
    assert_eq!(misled.run(&["enroll", &door.url(), "--token", &token]).code, 75);
    let friend = device(stage.path(), "friend", &door.url()).setting(&format!("ca_file = {:?}", authority.certificate()));
    friend.enroll(&token);
    friend.once_well();
    assert!(served(&friend));
    // The certificate is for 127.0.0.1 and localhost, and for no other name of this machine.
    let elsewhere = door.url().replace("127.0.0.1", "127.0.0.2");
    let lured = device(stage.path(), "lured", &elsewhere).setting(&format!("ca_file = {:?}", authority.certificate()));
    assert_eq!(lured.run(&["enroll", &elsewhere, "--token", &token]).code, 75);
}

#[test]
fn a_device_shows_its_certificate_where_it_is_asked_for_and_keeps_its_key_to_itself() {
    if !host::has("openssl") {
        return;
    }
    let stage = stage();
    let server = published(stage.path());
    let authority = Authority::new(&stage.path().join("ca"));
    let door = TlsDoor::open(&authority, server.addr(), true);
    let token = server.token("notes");
    let ca = format!("ca_file = {:?}", authority.certificate());
    let bare = device(stage.path(), "bare", &door.url()).setting(&ca);
    assert_eq!(bare.run(&["enroll", &door.url(), "--token", &token]).code, 75);

    let (certificate, key) = authority.vouch("device", "extendedKeyUsage=clientAuth");
    let known = device(stage.path(), "known", &door.url()).setting(&ca).setting(&format!("client_cert = {certificate:?}\nclient_key = {key:?}"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let careless = known.run(&["enroll", &door.url(), "--token", &token]);
    assert_ne!(careless.code, 0);
    assert!(careless.said().contains("others can read it (mode 0644)") && careless.said().contains("chmod 600"), "{careless}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    known.enroll(&token);
    known.once_well();
    assert!(served(&known));
    fs::write(&key, "no key").unwrap();
    let garbled = known.once();
    assert!(garbled.code != 0 && garbled.said().contains("no private key in PEM form"), "{garbled}");
}

#[test]
fn a_proxy_is_used_as_it_is_written_and_else_as_the_environment_says() {
    if !host::has("openssl") {
        return;
    }
    let stage = stage();
    let server = published(stage.path());
    let authority = Authority::new(&stage.path().join("ca"));
    let door = TlsDoor::open(&authority, server.addr(), false);
    let proxy = Proxy::start(server.addr());
    let token = server.token("notes");
    let check = |name: &str, setting: Option<String>, env: bool, expected: bool| {
        let mut device = device(stage.path(), name, &door.url()).setting(&format!("ca_file = {:?}", authority.certificate()));
        if let Some(setting) = setting {
            device = device.setting(&setting);
        }
        for variable in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"] {
            device = device.env(variable, if env && variable == "HTTPS_PROXY" { proxy.url() } else { String::new() });
        }
        device.enroll(&token);
        device.once_well();
        assert!(served(&device), "{name}");
        assert_eq!(proxy.used() > 0, expected, "{name}");
    };
    check("written", Some(format!("proxy = {:?}", proxy.url())), false, true);
    check("environment", None, true, true);
    check("neither", None, false, false);
    check("switched-off", Some("proxy = \"none\"".to_owned()), true, false);
}

#[test]
fn plain_http_to_another_machine_has_to_be_written_and_is_said_each_time() {
    let stage = stage();
    let server = published(stage.path());
    // Every plain address leads to the server.
    let proxy = Proxy::start(server.addr());
    let url = "http://updates.example";
    let token = server.token("notes");
    let through = format!("proxy = {:?}", proxy.url());
    let careful = device(stage.path(), "careful", url).setting(&through);
    careful.once().says(78, &["plain http is only for this machine", "insecure_http = true"]);
    assert_eq!(proxy.used(), 0, "something was sent");

    let bold = device(stage.path(), "bold", url).setting(&through).setting("insecure_http = true");
    bold.run(&["enroll", url, "--token", &token]).says(0, &["everybody on the way"]);
    let once = bold.once_well();
    assert!(once.stderr.contains("insecure_transport"), "{once}");
    assert!(served(&bold));
    let mut daemon = bold.start();
    daemon.until(SOON, "the warning", |status| status["health"].as_array()?.iter().find(|h| h["code"] == "insecure_transport").cloned());
    daemon.stop();

    // The server that it is enrolled with, and no line that says so any more.
    let text = fs::read_to_string(bold.config()).unwrap().replace("insecure_http = true", "").replace(&format!("server = {url:?}"), "");
    fs::write(bold.config(), text).unwrap();
    proxy.used();
    let refused = bold.once();
    assert!(refused.said().contains("insecure_http is not set"), "{refused}");
    assert_eq!(proxy.used(), 0, "the token was sent");
    let published = bold.command(&["publish", ".", "--app", "notes", "--server", url]).env("WHIMBREL_API_KEY", "whk_x").output().unwrap();
    assert_ne!(published.status.code(), Some(0));
}
