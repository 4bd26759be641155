//! Who is at the other end of the control socket, and what they may: the kernel says who, and a table says what.

use std::{fmt, io};

use whimbrel_shared::remedy::here;

use super::protocol::{Reply, Request};
use crate::config::{Control, GroupMay};

/// Most groups of a process that Linux knows.
#[cfg(target_os = "linux")]
const MAX_GROUPS: usize = 65_536;

/// A process at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whose it was when it connected.
    pub uid: u32,
    /// The groups it was in then.
    pub groups: Vec<u32>,
}

/// What somebody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    Nothing,
    /// See how things stand.
    Read,
    /// Give orders, and see values of rows.
    Operate,
}

/// The group whose members may talk to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// What they may.
    pub may: GroupMay,
}

impl Peer {
    /// What it may, where the daemon runs as `us`. Pure.
    pub fn access(&self, us: u32, group: Option<&Group>) -> Access {
        match group {
            _ if self.uid == us || self.uid == 0 => Access::Operate,
            Some(group) if self.groups.contains(&group.gid) => match group.may {
                GroupMay::Read => Access::Read,
                GroupMay::Operate => Access::Operate,
            },
            Some(_) | None => Access::Nothing,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)
    }
}

/// What a request needs. Pure.
pub fn needs(request: &Request) -> Access {
    match request {
        Request::Hello { .. }
        | Request::Status
        | Request::Watch
        | Request::History { .. }
        | Request::Tables { .. }
        | Request::Plan { rehearse: false, .. }
        | Request::Backups { .. }
        | Request::Adopt { .. }
        | Request::Outcome { .. }
        | Request::Doctor => Access::Read,
        // What they show are values of rows, and those are the database's owner's.
        Request::FailedItems { .. } | Request::Conflicts { .. } | Request::Quarantine { .. } => Access::Operate,
        // A rehearsal copies the database, which costs disk and time.
        Request::Plan { rehearse: true, .. } | Request::Order { .. } | Request::AppVersion { .. } | Request::Poll => Access::Operate,
    }
}

/// The answer to a peer that may not. Pure.
pub fn refusal(peer: &Peer, has: Access, us: u32, group: Option<&Group>) -> Reply {
    match (has, group) {
        (Access::Nothing, None) => Reply::NotPermitted {
            message: format!("{peer} may not talk to the daemon, which runs as uid {us}"),
            remedy: here(format!("run this as uid {us} or as root; `[control] group` in the daemon's configuration lets others in")),
        },
        (Access::Nothing, Some(group)) => Reply::NotPermitted {
            message: format!("{peer} may not talk to the daemon, which runs as uid {us}, and is not in the group {}", group.name),
            remedy: here(format!("run this as uid {us} or as root, or as a member of the group {}", group.name)),
        },
        (Access::Read | Access::Operate, group) => Reply::NotPermitted {
            message: format!("members of the group {} may look at the daemon, and neither see rows nor give orders", group.map_or("", |g| &g.name)),
            remedy: here(format!("run this as uid {us} or as root; `[control] group_may = \"operate\"` lets the group give orders")),
        },
    }
}

/// Finds the group of a configuration. Fails where the system has none of that name.
#[cfg(unix)]
pub fn group(control: &Control) -> io::Result<Option<Group>> {
    let Some(name) = &control.group else { return Ok(None) };
    let nul = std::ffi::CString::new(name.as_str()).map_err(|_| io::Error::other(format!("control.group = {name:?} is no name")))?;
    let mut room = vec![0; 64 * 1024];
    // SAFETY: the name ends in NUL, the structures are plain data, and the room is as long as is said.
    let (failed, gid) = unsafe {
        let mut entry: libc::group = std::mem::zeroed();
        let mut found = std::ptr::null_mut();
        let failed = libc::getgrnam_r(nul.as_ptr(), &raw mut entry, room.as_mut_ptr(), room.len(), &raw mut found);
        (failed, (!found.is_null()).then_some(entry.gr_gid))
    };
    match gid {
        Some(gid) => Ok(Some(Group { name: name.clone(), gid, may: control.group_may })),
        None if failed != 0 => Err(io::Error::from_raw_os_error(failed)),
        None => Err(io::Error::other(format!("this system has no group {name:?}, which control.group names"))),
    }
}

/// Who connected. The kernel noted it then; what the process became since does not count.
#[cfg(unix)]
pub fn peer_of(stream: &tokio::net::UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let mut groups = supplementary(stream)?;
    groups.push(credentials.gid());
    Ok(Peer { uid: credentials.uid(), groups })
}

#[cfg(target_os = "linux")]
fn supplementary(stream: &tokio::net::UnixStream) -> io::Result<Vec<u32>> {
    use std::os::fd::AsRawFd;
    let mut groups = vec![0u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the room is as long as is said, and the kernel says how much of it it filled, or would have.
        let failed =
            unsafe { libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut bytes) } != 0;
        let count = bytes as usize / size_of::<u32>();
        if !failed {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || !(groups.len() + 1..=MAX_GROUPS).contains(&count) {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn supplementary(_stream: &tokio::net::UnixStream) -> io::Result<Vec<u32>> {
    // Only its first group is known: who has the daemon's as a further one needs `newgrp`.
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{PersonOrder, Selector};

    #[test]
    fn the_daemons_user_and_root_may_everything_a_group_what_is_said_and_others_nothing() {
        let group = |may| Some(Group { name: "admins".into(), gid: 50, may });
        let check = |uid: u32, groups: &[u32], group: Option<Group>, expected: Access| {
            assert_eq!(Peer { uid, groups: groups.to_vec() }.access(1000, group.as_ref()), expected, "uid {uid} in {groups:?}, {group:?}");
        };
        for set in [None, group(GroupMay::Read), group(GroupMay::Operate)] {
            check(1000, &[1], set.clone(), Access::Operate);
            check(0, &[0], set.clone(), Access::Operate);
            check(1001, &[1000, 51], set, Access::Nothing);
        }
        check(1001, &[50], None, Access::Nothing);
        check(1001, &[7, 50], group(GroupMay::Read), Access::Read);
        check(1001, &[7, 50], group(GroupMay::Operate), Access::Operate);
    }

    #[test]
    fn who_may_only_look_sees_no_rows_and_gives_no_orders() {
        let all = || Selector(None);
        for request in [Request::Status, Request::Watch, Request::Doctor, Request::Plan { database: all(), rehearse: false }] {
            assert_eq!(needs(&request), Access::Read, "{request:?}");
        }
        for request in [
            Request::Poll,
            Request::Plan { database: all(), rehearse: true },
            Request::Order { database: all(), order: PersonOrder::Cycle, wait: false },
            Request::Conflicts { database: all(), id: None, all: true, limit: 1 },
            Request::Quarantine { database: all(), limit: 1 },
            Request::FailedItems { database: all(), limit: 1 },
        ] {
            assert_eq!(needs(&request), Access::Operate, "{request:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_kernel_says_who_is_at_the_other_end() {
        let (here, _there) = tokio::net::UnixStream::pair().unwrap();
        let peer = peer_of(&here).unwrap();
        // SAFETY: plain system calls; the first asks only how many there are.
        let (uid, gid, count) = unsafe { (libc::geteuid(), libc::getegid(), libc::getgroups(0, std::ptr::null_mut())) };
        assert_eq!((peer.uid, peer.groups.last()), (uid, Some(&gid)));
        assert_eq!(peer.groups.len(), count as usize + 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_group_that_the_system_has_not_is_an_error_that_names_it() {
        let of = |name: &str| group(&Control { group: Some(name.into()), group_may: GroupMay::Read });
        assert_eq!(of("root").unwrap().unwrap().gid, 0);
        assert!(of("no-such-group").unwrap_err().to_string().contains("\"no-such-group\""));
    }
}
