//! Where a server listens: a socket whose name is the same for everyone who asks for the same container.

use crate::failure::Failure;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where shims' sockets are, unless containerd says otherwise. Short: a socket's path has at most 107 bytes.
pub const DIRECTORY: &str = "/run/containerd/s";
/// In front of addresses, as containerd has them.
pub const SCHEME: &str = "unix://";

/// The socket for `id`, which may be a group's name. Names are long and paths short, so it is a digest.
pub fn of(directory: &Path, containerd: &str, namespace: &str, id: &str) -> PathBuf {
    let half = |salt: u8| {
        // The same in every process: its keys are fixed.
        let mut hasher = DefaultHasher::new();
        (salt, "husk", containerd, namespace, id).hash(&mut hasher);
        hasher.finish()
    };
    directory.join(format!("husk-{:016x}{:016x}", half(0), half(1)))
}

/// What came of binding.
#[derive(Debug)]
pub enum Bound {
    /// It is ours.
    New(UnixListener),
    /// A server listens there.
    Taken,
}

/// Binds it. A socket that nobody listens at any more is replaced.
pub fn bind(path: &Path) -> Result<Bound, Failure> {
    let failed =
        |error: std::io::Error| Failure::host(&format!("create the socket {}", path.display()), &error);
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).map_err(failed)?;
    }
    match UnixListener::bind(path) {
        Ok(listener) => return made_private(path, listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => return Err(failed(error)),
    }
    if UnixStream::connect(path).is_ok() {
        return Ok(Bound::Taken);
    }
    std::fs::remove_file(path).map_err(failed)?;
    made_private(path, UnixListener::bind(path).map_err(failed)?)
}

fn made_private(path: &Path, listener: UnixListener) -> Result<Bound, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let private = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    private.map_err(|error| Failure::host(&format!("make {} private", path.display()), &error))?;
    Ok(Bound::New(listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_bound_once_found_while_it_lives_and_replaced_when_its_server_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let path = of(&root.path().join("s"), "/c", "default", "one");
        assert_eq!(path, of(&root.path().join("s"), "/c", "default", "one"));
        assert_ne!(path, of(&root.path().join("s"), "/c", "default", "two"));
        let Bound::New(listener) = bind(&path).unwrap() else { panic!("taken") };
        assert!(matches!(bind(&path).unwrap(), Bound::Taken));
        drop(listener);
        assert!(matches!(bind(&path).unwrap(), Bound::New(_)));
    }
}
