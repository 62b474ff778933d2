//! Finding the program as its user would, with the words of Go's exec.LookPath, which callers of runc match.

use super::resolve::text;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::stat;
use nix::unistd::{AccessFlags, faccessat};
use std::ffi::CString;

/// Why the program cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No directory of PATH has it.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// It was found only through an empty or relative entry of PATH.
    #[error("exec: {0:?}: cannot run executable found relative to current directory")]
    Relative(String),
    /// It is not there.
    #[error("exec: {name:?}: stat {name}")]
    Stat {
        /// The path.
        name: String,
        /// Why.
        source: sys::Error,
    },
    /// It is there and cannot be executed.
    #[error("exec: {name:?}")]
    Unusable {
        /// The path.
        name: String,
        /// Why.
        source: sys::Error,
    },
}

/// The path to execute for `name`, looked up in `path` if it has no slash.
pub fn find(name: &str, path: &str) -> Result<CString, LookupError> {
    let whole =
        |found: &str| text(found).map_err(|source| LookupError::Unusable { name: name.to_owned(), source });
    if name.contains('/') {
        check(name)?;
        return whole(name);
    }
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = if directory.ends_with('/') {
            format!("{directory}{name}")
        } else {
            format!("{directory}/{name}")
        };
        if !name.is_empty() && check(&candidate).is_ok() {
            return if directory.starts_with('/') {
                whole(&candidate)
            } else {
                Err(LookupError::Relative(name.to_owned()))
            };
        }
    }
    Err(LookupError::NotInPath(name.to_owned()))
}

/// Whether that file may be executed by us, as we now are.
fn check(name: &str) -> Result<(), LookupError> {
    let unusable = |errno: Errno| LookupError::Unusable { name: name.to_owned(), source: errno.into() };
    let status =
        stat(name).map_err(|errno| LookupError::Stat { name: name.to_owned(), source: errno.into() })?;
    if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(unusable(Errno::EISDIR));
    }
    match faccessat(nix::fcntl::AT_FDCWD, name, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // A filter may forbid the question: then the permission bits answer, as in Go.
        Err(Errno::ENOSYS | Errno::EPERM) if status.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => Err(unusable(Errno::EACCES)),
        other => other.map_err(unusable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::chain;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_way_to_miss_a_program_has_runcs_words() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("plain"), "").unwrap();
        std::fs::write(at("tool"), "").unwrap();
        std::fs::set_permissions(at("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let path = format!("/nowhere:{}", top.path().display());

        assert_eq!(find("tool", &path).unwrap().into_string().unwrap(), at("tool"));
        assert_eq!(find(&at("tool"), "").unwrap().into_string().unwrap(), at("tool"));
        for (name, path, words) in [
            (
                "plain".to_owned(),
                path.as_str(),
                "exec: \"plain\": executable file not found in $PATH".to_owned(),
            ),
            ("tool".to_owned(), "", "exec: \"tool\": executable file not found in $PATH".to_owned()),
            (String::new(), path.as_str(), "exec: \"\": executable file not found in $PATH".to_owned()),
            (at("no"), "", format!("exec: \"{0}\": stat {0}: no such file or directory", at("no"))),
            (at("plain"), "", format!("exec: \"{}\": permission denied", at("plain"))),
            (at("folder"), "", format!("exec: \"{}\": is a directory", at("folder"))),
            (at("plain/x"), "", format!("exec: \"{0}\": stat {0}: not a directory", at("plain/x"))),
        ] {
            assert_eq!(chain(&find(&name, path).unwrap_err()), words);
        }
    }
}
