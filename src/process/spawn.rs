//! Starts another `husk` process that outlives the command that starts it: a machine, or a stand-in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The number at which such a process finds the socket to who started it.
pub const PARENT: i32 = 3;

/// This program itself, which need not be where it was when it was started.
pub const THIS: &str = "/proc/self/exe";

/// Starts `program`, a `husk`, with a hidden verb, and `socket` as descriptor [`PARENT`]. Its descriptors 0, 1 and 2
/// are ours, or /dev/null if they are not for it. It gets no environment and no other descriptor that closes on exec.
pub fn husk(program: &Path, verb: &str, socket: OwnedFd, inherit_standard: bool) -> io::Result<Child> {
    own_at(program, &["husk", verb], socket, inherit_standard)
}

fn own_at(program: &Path, arguments: &[&str], socket: OwnedFd, inherit_standard: bool) -> io::Result<Child> {
    let mut command = Command::new(program);
    let mut arguments = arguments.iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_clear();
    #[cfg(feature = "fault-points")]
    command.envs(
        std::env::var_os(crate::host::fault::VARIABLE).map(|point| (crate::host::fault::VARIABLE, point)),
    );
    if !inherit_standard {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let raw = socket.as_raw_fd();
    let place = move || {
        // SAFETY: both calls take numbers only and are async-signal-safe.
        let placed = unsafe {
            match raw {
                // dup2 onto itself would leave it to be closed on exec.
                PARENT => libc::fcntl(PARENT, libc::F_SETFD, 0),
                raw => libc::dup2(raw, PARENT),
            }
        };
        if placed == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: `place` makes no others.
    unsafe { command.pre_exec(place) };
    super::signal::unblock_in(&mut command).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_child_finds_its_socket_at_3_and_nothing_else_of_ours() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let script = "read line <&3; echo \"$line HOME=$HOME\" >&3; cat >&3";
        let mut child = own_at(Path::new("/bin/sh"), &["sh", "-c", script], theirs.into(), false).unwrap();
        ours.write_all(b"hello\n").unwrap();
        let mut text = String::new();
        // It ends: its stdin is /dev/null, and no copy of the socket's other end is left with us.
        ours.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "hello HOME=\n");
    }
}
