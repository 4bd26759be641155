//! `[control]`: who may talk to the control socket, besides the daemon's user and root.

use std::path::Path;

use serde::Deserialize;

/// Who may talk to the control socket, besides the daemon's user and root. By default nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// A group of the system: its members may.
    pub group: Option<String>,
    /// What they may.
    pub group_may: GroupMay,
}

/// What the members of the group may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupMay {
    /// See how things stand: status, history, plans. No values of rows, and no orders.
    #[default]
    Read,
    /// Everything that the daemon's user may.
    Operate,
}

impl Control {
    /// Refuses what cannot work: the state directory is the daemon's alone, so a group never gets to a socket in it.
    pub(super) fn check(&self, socket: &Path, state_dir: &Path) -> Result<(), String> {
        match &self.group {
            Some(group) if group.is_empty() => Err("control.group is empty: name a group, or leave it out".to_owned()),
            Some(group) if socket.starts_with(state_dir) => Err(format!(
                "control.group = {group:?}: its members cannot enter the state directory {}, where the socket is; set `socket` to a path \
                 elsewhere, such as /run/whimbrel/NAME/control.sock",
                state_dir.display()
            )),
            Some(_) => Ok(()),
            None if self.group_may == GroupMay::Operate => Err("control.group_may is set, and control.group is not".to_owned()),
            None => Ok(()),
        }
    }
}
