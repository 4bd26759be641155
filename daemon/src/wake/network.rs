//! The network came back: a netlink socket says that a link, an address or a route changed. It carries no verdict: the
//! poll that follows finds out. Linux; elsewhere the schedule alone wakes the loop.

use super::bell::{Bell, Why};

#[cfg(target_os = "linux")]
mod listen {
    use std::{
        io,
        mem::{size_of, zeroed},
        os::fd::{AsRawFd, FromRawFd, OwnedFd},
        time::Duration,
    };

    use tokio::io::unix::AsyncFd;

    use super::{Bell, Why};

    /// Changes come in bursts (link, address, route): ring once, after the last has settled.
    const SETTLE: Duration = Duration::from_millis(250);
    /// A link that never settles must not keep the bell silent.
    const LONGEST_SETTLE: Duration = Duration::from_secs(1);

    fn socket() -> io::Result<OwnedFd> {
        // SAFETY: plain system calls on values made here; the descriptor is owned as soon as it exists.
        unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_nl = zeroed();
            address.nl_family = libc::AF_NETLINK as u16;
            address.nl_groups =
                (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE) as u32;
            let length = size_of::<libc::sockaddr_nl>() as u32;
            if libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(fd)
        }
    }

    /// Reads everything that is waiting. Too much of it (ENOBUFS) is a change too.
    fn drain(fd: i32) -> io::Result<()> {
        let mut buffer = [0u8; 8192];
        loop {
            // SAFETY: the buffer is as long as it is said to be.
            let n = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if n < 0 {
                let error = io::Error::last_os_error();
                return if error.raw_os_error() == Some(libc::ENOBUFS) { Ok(()) } else { Err(error) };
            }
        }
    }

    pub(super) async fn listen(bell: Bell) -> io::Result<()> {
        // SAFETY: the descriptor is owned by the AsyncFd from here on, and nobody else closes it.
        let socket = unsafe { AsyncFd::register(socket()?) }?;
        loop {
            let begun = loop {
                let mut ready = socket.readable().await?;
                if let Ok(result) = ready.try_io(|fd| drain(fd.as_raw_fd())) {
                    result?;
                }
                break tokio::time::Instant::now();
            };
            while begun.elapsed() < LONGEST_SETTLE {
                match tokio::time::timeout(SETTLE, socket.readable()).await {
                    Ok(ready) => {
                        if let Ok(result) = ready?.try_io(|fd| drain(fd.as_raw_fd())) {
                            result?;
                        }
                    }
                    Err(_) => break,
                }
            }
            bell.ring(Why::Network);
        }
    }
}

/// Rings `bell` whenever the network changes. Ends only with an error, which is logged: the schedule goes on without it.
pub async fn listen(bell: Bell) {
    #[cfg(target_os = "linux")]
    if let Err(error) = listen::listen(bell).await {
        tracing::warn!(%error, "changes of the network are not seen; the schedule alone wakes the daemon");
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (bell, Why::Network);
        std::future::pending::<()>().await;
    }
}
