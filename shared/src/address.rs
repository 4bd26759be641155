//! Addresses of servers: what they lead over. Pure.

/// What an address leads over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Encrypted.
    Https,
    /// Plain, within this machine.
    Loopback,
    /// Plain, to another machine: everybody on the way reads and changes what is sent.
    Plain,
}

/// What an address leads over.
pub fn way(url: &str) -> Result<Way, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it is an address such as \"https://updates.example.com\"")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("credentials do not belong into it".to_owned());
    }
    let host = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.rsplit_once(':').map_or(authority, |(h, _)| h),
    };
    match scheme {
        _ if host.is_empty() => Err("it names no host".to_owned()),
        "https" => Ok(Way::Https),
        "http" => {
            let loopback = host == "localhost" || host.parse::<core::net::IpAddr>().is_ok_and(|a| a.is_loopback());
            Ok(if loopback { Way::Loopback } else { Way::Plain })
        }
        _ => Err("it begins with https:// (or http:// for this machine)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_whether_others_can_read_along() {
        let check = |url: &str, expected: Way| assert_eq!(way(url), Ok(expected), "{url}");
        check("https://a.example", Way::Https);
        check("http://127.0.0.1:80", Way::Loopback);
        check("http://[::1]:80/x", Way::Loopback);
        check("http://localhost", Way::Loopback);
        check("http://a.example", Way::Plain);
        check("http://127.0.0.1.example", Way::Plain);
        check("http://[2001:db8::1]:80", Way::Plain);
        for bad in ["http://", "ftp://a.example", "a.example", "https://me:secret@a.example"] {
            assert!(way(bad).is_err(), "{bad}");
        }
    }
}
