//! A small file that is kept to be freed when the disk is full, so that what happened can still be recorded (DESIGN 7).

use std::{fs, io::Write, path::Path};

use super::private::make_private_file;

/// Enough for a checkpoint and a few records.
const SIZE_BYTES: usize = 1024 * 1024;

/// Makes sure it is there. On a full disk it is not, and that is no error.
pub fn keep(state_dir: &Path) {
    let path = state_dir.join("ballast");
    if fs::metadata(&path).is_ok_and(|m| m.len() == SIZE_BYTES as u64) {
        return;
    }
    // Ones, not a hole: a file of zeros may take no room.
    let made = make_private_file(&path).and_then(|mut file| file.set_len(0).and_then(|()| file.write_all(&vec![0xff; SIZE_BYTES])));
    if made.is_err() {
        free(state_dir);
    }
}

/// Gives its room back.
pub fn free(state_dir: &Path) {
    // Not being there is what is wanted.
    let _ = fs::remove_file(state_dir.join("ballast"));
}
