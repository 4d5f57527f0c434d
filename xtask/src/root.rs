//! Root for an ordinary user.

use std::fs;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::command::Failure;

/// Makes an ordinary user root in a new user namespace (`user_namespaces(7)`). Must be called before
/// there is a second thread.
pub(crate) fn become_root() -> Result<(), Failure> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER).map_err(Failure::NotRoot)?;
    let write = |file: &str, text: String| {
        let path = Path::new("/proc/self").join(file);
        fs::write(&path, text).map_err(Failure::file("write", &path))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}
