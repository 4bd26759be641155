//! The way to the server: what addresses may lead over, and what lies in between. Pure.

use whimbrel_shared::address::{Way, way};

/// A server address: https, or http to this machine. Plain http to another one only where `insecure_http` says so.
pub fn check_server(url: &str, insecure_http: bool) -> Result<(), String> {
    match way(url)? {
        Way::Https | Way::Loopback => Ok(()),
        Way::Plain if insecure_http => Ok(()),
        Way::Plain => Err("plain http is only for this machine (127.0.0.1, ::1, localhost); use https, or write `insecure_http = true` where \
                           everybody on the way may read and change what is sent"
            .to_owned()),
    }
}

/// A proxy's address: `http://HOST:PORT` or `https://HOST:PORT`; `none` says that there is none, whatever the environment says.
pub(super) fn check_proxy(proxy: &str) -> Result<(), String> {
    match proxy {
        "none" => Ok(()),
        _ => way(proxy).map(|_| ()).map_err(|why| format!("{why}; a proxy is http://HOST:PORT, or \"none\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_leads_to_another_machine_only_where_that_is_written() {
        let check = |url: &str, safe: bool, insecure: bool| {
            assert_eq!((check_server(url, false).is_ok(), check_server(url, true).is_ok()), (safe, insecure), "{url}");
        };
        check("https://a.example", true, true);
        check("http://127.0.0.1:80", true, true);
        check("http://a.example", false, true);
        check("ftp://a.example", false, false);
        assert!(check_server("http://a.example", false).unwrap_err().contains("insecure_http = true"));
    }

    #[test]
    fn a_proxy_is_an_address_without_credentials_or_none() {
        for good in ["none", "http://proxy.example:3128", "https://proxy.example"] {
            check_proxy(good).unwrap();
        }
        for bad in ["proxy.example:3128", "socks5://proxy.example", "http://me:secret@proxy.example"] {
            assert!(check_proxy(bad).is_err(), "{bad}");
        }
    }
}
