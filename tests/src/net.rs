//! Network namespaces, for links that are really down. Needs root.

use std::{ffi::CString, os::fd::AsRawFd, process::Command};

/// Two namespaces joined by a veth pair: `.1` in the first, `.2` in the second. Gone when dropped.
pub struct Cable {
    /// Where the server is.
    pub far: String,
    /// Where the daemon is.
    pub near: String,
}

impl Cable {
    /// Lays it. `None`, with the reason on stderr, where that is not permitted.
    pub fn lay() -> Option<Self> {
        let id = std::process::id();
        let cable = Self { far: format!("wbf{id}"), near: format!("wbn{id}") };
        let (far, near) = (&cable.far, &cable.near);
        if !ip(&["netns", "add", far]) {
            return None;
        }
        let done = ip(&["netns", "add", near])
            && ip(&["link", "add", "far0", "netns", far, "type", "veth", "peer", "name", "near0", "netns", near])
            && ip(&["-n", far, "addr", "add", "10.77.0.1/24", "dev", "far0"])
            && ip(&["-n", near, "addr", "add", "10.77.0.2/24", "dev", "near0"])
            && [(far, "far0"), (near, "near0")]
                .iter()
                .all(|(ns, link)| ip(&["-n", ns, "link", "set", "lo", "up"]) && ip(&["-n", ns, "link", "set", link, "up"]));
        done.then_some(cable)
    }

    /// Pulls the cable out, at the far end: the near side loses its carrier.
    pub fn pull(&self) {
        assert!(ip(&["-n", &self.far, "link", "set", "far0", "down"]));
    }

    /// Puts it back.
    pub fn plug(&self) {
        assert!(ip(&["-n", &self.far, "link", "set", "far0", "up"]));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.far]);
        ip(&["netns", "del", &self.near]);
    }
}

/// A command that runs in a namespace.
pub fn inside(namespace: &str, program: &std::path::Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Runs `work` on a thread of its own inside a namespace; sockets made there stay there.
pub fn on<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(namespace);
            work()
        });
        inside.join().expect("the work in the namespace succeeds")
    })
}

/// Moves the calling thread into a namespace for good.
pub fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
    // SAFETY: a plain system call on a descriptor that is open.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "cannot enter {namespace}: {}", std::io::Error::last_os_error());
}

fn ip(args: &[&str]) -> bool {
    match Command::new("ip").args(args).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            eprintln!("ip: {error}");
            false
        }
    }
}

/// Mounts a small file system in memory. `None` where that is not permitted.
pub fn small_disk(at: &std::path::Path, size_bytes: u64) -> Option<SmallDisk> {
    let path = CString::new(at.to_str()?).ok()?;
    let options = CString::new(format!("size={size_bytes}")).ok()?;
    // SAFETY: every pointer is to a text that ends in a zero and outlives the call.
    let done = unsafe { libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
    if done != 0 {
        eprintln!("mount: {}", std::io::Error::last_os_error());
        return None;
    }
    Some(SmallDisk(path))
}

/// A mounted small file system. Unmounted when dropped.
pub struct SmallDisk(CString);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: a plain system call on a text that ends in a zero.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}
