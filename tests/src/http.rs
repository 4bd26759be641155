//! The smallest HTTP/1.1 client that can ask a server, and the smallest reader of requests.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longest that an answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// An answer, or a request: first line, headers in lower case, body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The first line.
    pub first: String,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads a message whose end is told by Content-Length, or (an answer) by the end of the stream.
    pub fn read(stream: &mut impl Read, to_the_end: bool) -> std::io::Result<Self> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            match stream.read(&mut buffer)? {
                0 => return Err(cut()),
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let headers: BTreeMap<_, _> = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.trim().to_lowercase(), v.trim().to_owned())).collect();
        let mut body = bytes[head + 4..].to_vec();
        match headers.get("content-length").and_then(|n| n.parse::<usize>().ok()) {
            Some(length) => {
                while body.len() < length {
                    match stream.read(&mut buffer)? {
                        0 => return Err(cut()),
                        n => body.extend_from_slice(&buffer[..n]),
                    }
                }
                body.truncate(length);
            }
            None if to_the_end => {
                stream.read_to_end(&mut body)?;
            }
            None => {}
        }
        Ok(Self { first, headers, body })
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// Method and path of a request.
    pub fn target(&self) -> (String, String) {
        let mut words = self.first.split(' ').map(str::to_owned);
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.first, String::from_utf8_lossy(&self.body)))
    }

    /// The whole message as bytes, with the right Content-Length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.first).into_bytes();
        for (name, value) in self.headers.iter().filter(|(n, _)| *n != "content-length" && *n != "transfer-encoding") {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.status() != 304 {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One request on its own connection. `headers` are whole lines.
pub fn ask(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&addr, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    // A server that answers early may close before it read all.
    let _ = stream.write_all(body);
    Message::read(&mut stream, true)
}
