//! Where a control socket is: a path in a state directory, which may be longer than a socket's address can hold (108
//! bytes), since `--root` may be anywhere. A longer one is reached through a descriptor of its directory.

use super::wire::WireError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// How many callers may wait to be accepted.
const BACKLOG: i32 = 64;

/// Makes the control socket, mode 0600, and listens.
pub fn listen_at(path: &Path) -> Result<UnixListener, WireError> {
    let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(host("make a control socket"))?;
    // Before bind: the file is born with this mode, so there is no moment at which others could connect.
    fchmod(&made, Mode::S_IRUSR | Mode::S_IWUSR).map_err(host("make a control socket private"))?;
    let (address, _directory) = address(path).map_err(host("reach the control socket's directory"))?;
    bind(made.as_raw_fd(), &address).map_err(host("bind the control socket"))?;
    let backlog = Backlog::new(BACKLOG).map_err(host("listen on the control socket"))?;
    listen(&made, backlog).map_err(host("listen on the control socket"))?;
    Ok(UnixListener::from(made))
}

/// Connects to the control socket at `path`.
pub(super) fn connect_to(path: &Path) -> Result<UnixStream, Errno> {
    let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let (address, _directory) = address(path)?;
    connect(made.as_raw_fd(), &address)?;
    Ok(UnixStream::from(made))
}

/// The address of `path`, and what must stay open while it is used.
fn address(path: &Path) -> Result<(UnixAddr, Option<OwnedFd>), Errno> {
    match UnixAddr::new(path) {
        Ok(address) => Ok((address, None)),
        Err(Errno::ENAMETOOLONG) => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::EINVAL);
            };
            let directory =
                open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            let mut short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            short.push(name);
            Ok((UnixAddr::new(&short)?, Some(directory)))
        }
        Err(error) => Err(error),
    }
}

fn host(what: &'static str) -> impl FnOnce(Errno) -> WireError {
    move |error| WireError::Host { what, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_path_longer_than_an_address_works_and_the_socket_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("control.sock");
        let _listener = listen_at(&path).unwrap();
        connect_to(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
