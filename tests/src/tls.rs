//! Certificates, a door that speaks TLS in front of a server, and a proxy: what stands between devices and a server.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::http::{self, Message};

/// A certificate authority with what it vouches for, made by `openssl` in a folder.
pub struct Authority(PathBuf);

impl Authority {
    /// A new one.
    pub fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        let made = Self(folder.to_owned());
        made.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority");
        made
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// A certificate for `name` and its key. `more`: its extensions, as `openssl` writes them.
    pub fn vouch(&self, name: &str, more: &str) -> (PathBuf, PathBuf) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -addext {more}"
        ));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out {name}.pem"));
        (self.0.join(format!("{name}.pem")), self.0.join(format!("{name}.key")))
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(&self.0).output().expect("openssl starts");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A door with TLS in front of a server. It stands as long as the process.
pub struct TlsDoor {
    addr: SocketAddr,
}

impl TlsDoor {
    /// Opens one for the server at `behind`. With `clients`, only who has a certificate of the authority comes in.
    pub fn open(authority: &Authority, behind: SocketAddr, clients: bool) -> Self {
        let (certificate, key) = authority.vouch("server", "subjectAltName=IP:127.0.0.1,DNS:localhost");
        let chain = CertificateDer::pem_file_iter(certificate).expect("it was just made").collect::<Result<Vec<_>, _>>().expect("it is PEM");
        let key = PrivateKeyDer::from_pem_file(key).expect("it was just made");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3 are there");
        let config = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority.certificate()).expect("it is PEM")).expect("it is an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("there is a root");
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let config = Arc::new(config.with_single_cert(chain, key).expect("the key is the certificate's"));
        let addr = each_connection(move |stream| {
            let Ok(connection) = ServerConnection::new(config.clone()) else { return };
            let mut stream = StreamOwned::new(connection, stream);
            while let Ok(request) = Message::read(&mut stream, false) {
                let path = request.first.split(' ').nth(1).unwrap_or_default().to_owned();
                if stream.write_all(&pass_on(behind, &request, &path)).and_then(|()| stream.flush()).is_err() {
                    return;
                }
            }
        });
        Self { addr }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }
}

/// A proxy that counts what goes through it, and finds every plain address at one server. It stands as long as the process.
pub struct Proxy {
    addr: SocketAddr,
    used: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts one.
    pub fn start(plain: SocketAddr) -> Self {
        let used = Arc::new(AtomicUsize::new(0));
        let count = used.clone();
        let addr = each_connection(move |mut stream| {
            while let Ok(request) = Message::read(&mut stream, false) {
                count.fetch_add(1, Ordering::SeqCst);
                let target = request.first.split(' ').nth(1).unwrap_or_default().to_owned();
                if request.first.starts_with("CONNECT ") {
                    let Ok(aim) = TcpStream::connect(&target) else { return };
                    if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_ok() {
                        join(stream, aim);
                    }
                    return;
                }
                let path = target.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned())).unwrap_or(target);
                if stream.write_all(&pass_on(plain, &request, &path)).is_err() {
                    return;
                }
            }
        });
        Self { addr, used }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How often something went through it since it was asked last.
    pub fn used(&self) -> usize {
        self.used.swap(0, Ordering::SeqCst)
    }
}

/// Listens on a free port, with a thread for each connection.
fn each_connection(work: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("it has an address");
    let work = Arc::new(work);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = work.clone();
            std::thread::spawn(move || work(stream));
        }
    });
    addr
}

/// Asks the server the same, and gives its answer as bytes.
fn pass_on(server: SocketAddr, request: &Message, path: &str) -> Vec<u8> {
    let method = request.first.split(' ').next().unwrap_or_default();
    let own = ["host", "content-length", "connection", "accept-encoding"];
    let headers: String = request.headers.iter().filter(|(n, _)| !own.contains(&n.as_str())).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let answer = http::ask(server, method, path, &headers, &request.body).expect("the server answers");
    let own = ["content-length", "connection", "transfer-encoding"];
    let headers: String = answer.headers.iter().filter(|(n, _)| !own.contains(&n.as_str())).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let length = if answer.status() == 304 { String::new() } else { format!("content-length: {}\r\n", answer.body.len()) };
    let mut bytes = format!("{}\r\n{headers}{length}\r\n", answer.first).into_bytes();
    bytes.extend_from_slice(&answer.body);
    bytes
}

/// Carries bytes both ways until one side is done.
fn join(one: TcpStream, other: TcpStream) {
    let carry = |mut from: TcpStream, mut to: TcpStream| {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    };
    let (from, to) = (one.try_clone().expect("a socket can be had twice"), other.try_clone().expect("a socket can be had twice"));
    std::thread::spawn(move || carry(from, to));
    carry(other, one);
}
