//! Paths of the container, resolved inside its root.
//!
//! An image may hold any symbolic link. The common case is one openat2(2) with RESOLVE_IN_ROOT; only when something is
//! missing and has to be made are the components walked one by one, each opened without following it, each symbolic link
//! read and walked in turn, and `..` answered from the stack of descriptors that led here. Neither way can leave the root,
//! even while somebody else renames what lies below it.

use crate::sys::{self, Result, file};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// As many symbolic links as a path may hold (the kernel allows 40, runc's resolver 255).
const MOST_LINKS: usize = 255;

/// The container's root directory.
pub struct Root(OwnedFd);

impl Root {
    /// Takes the directory that is to be the root.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens what is at `path`, only as a place (O_PATH). Symbolic links lead where they would lead in the container.
    pub fn find(&self, path: &str) -> Result<OwnedFd> {
        file::open_at(&self.0, &text(path)?, libc::O_PATH, 0, file::IN_ROOT | file::NO_MAGIC_LINKS)
    }

    /// The same, but ELOOP if any component is a symbolic link.
    pub fn find_without_links(&self, path: &str) -> Result<OwnedFd> {
        file::open_at(&self.0, &text(path)?, libc::O_PATH, 0, file::IN_ROOT | file::NO_SYMLINKS)
    }

    /// Opens the directory at `path`, made with its parents if it is missing. May give a file, if that is what is there.
    pub fn directory(&self, path: &str) -> Result<OwnedFd> {
        match self.find(path) {
            Err(sys::Error(Errno::ENOENT)) => self.walk(path)?.make_directories(),
            other => other,
        }
    }

    /// Opens the file at `path`, made empty if it is missing, parents too. May give a directory.
    pub fn file(&self, path: &str) -> Result<OwnedFd> {
        match self.find(path) {
            Err(sys::Error(Errno::ENOENT)) => self.walk(path)?.make_file(),
            other => other,
        }
    }

    /// Opens the directory that holds `path`'s last component, made if missing, and says that component.
    pub fn parent(&self, path: &str) -> Result<(OwnedFd, CString)> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return Err(sys::Error(Errno::EINVAL));
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.directory(parent)?, text(name)?))
    }

    fn walk(&self, path: &str) -> Result<Walk> {
        let mut walk = Walk {
            passed: Vec::new(),
            here: self.0.try_clone()?,
            missing: Vec::new(),
            ahead: VecDeque::new(),
        };
        let mut links = 0usize;
        walk.ahead.extend(components(path.as_bytes()));
        while let Some(name) = walk.ahead.pop_front() {
            if let Some(link) = walk.step(name)? {
                links = links.saturating_add(1);
                if links > MOST_LINKS {
                    return Err(sys::Error(Errno::ELOOP));
                }
                if link.first() == Some(&b'/') {
                    walk.passed.clear();
                    walk.here = self.0.try_clone()?;
                }
                for name in components(&link).into_iter().rev() {
                    walk.ahead.push_front(name);
                }
            }
        }
        Ok(walk)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How far a path leads: directories passed, where we are, and the components that do not exist.
struct Walk {
    passed: Vec<OwnedFd>,
    here: OwnedFd,
    missing: Vec<CString>,
    ahead: VecDeque<CString>,
}

impl Walk {
    /// Goes one component on. Gives the target if it was a symbolic link.
    fn step(&mut self, name: CString) -> Result<Option<Vec<u8>>> {
        if name.as_bytes() == b".." {
            if self.missing.pop().is_none()
                && let Some(parent) = self.passed.pop()
            {
                self.here = parent;
            }
            return Ok(None);
        }
        if !self.missing.is_empty() {
            self.missing.push(name);
            return Ok(None);
        }
        match file::open_at(&self.here, &name, libc::O_PATH | libc::O_NOFOLLOW, 0, 0) {
            Err(sys::Error(Errno::ENOENT)) => self.missing.push(name),
            Err(error) => return Err(error),
            Ok(entry) => {
                let kind = SFlag::from_bits_truncate(fstat(&entry)?.st_mode & libc::S_IFMT);
                if kind == SFlag::S_IFLNK {
                    let target = nix::fcntl::readlinkat(&entry, OsStr::new(""))?;
                    return Ok(Some(target.into_vec()));
                }
                if kind != SFlag::S_IFDIR && !self.ahead.is_empty() {
                    return Err(sys::Error(Errno::ENOTDIR));
                }
                self.passed.push(std::mem::replace(&mut self.here, entry));
            }
        }
        Ok(None)
    }

    fn make_directories(mut self) -> Result<OwnedFd> {
        for name in std::mem::take(&mut self.missing) {
            self.here = make_directory(&self.here, &name)?;
        }
        Ok(self.here)
    }

    fn make_file(mut self) -> Result<OwnedFd> {
        let Some(name) = self.missing.pop() else { return Ok(self.here) };
        let parent = self.make_directories()?;
        match mknodat(&parent, name.as_c_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o755), 0) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        file::open_at(&parent, &name, libc::O_PATH | libc::O_NOFOLLOW, 0, file::NO_SYMLINKS)
    }
}

fn make_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    file::open_at(parent, name, flags, 0, file::NO_SYMLINKS)
}

/// The named parts of a path: no empty ones, no `.`.
fn components(path: &[u8]) -> Vec<CString> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .filter_map(|name| CString::new(name).ok())
        .collect()
}

/// A path as the kernel takes it.
pub fn text(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| sys::Error(Errno::EINVAL))
}

/// Reads a small regular file of the container: never waits on a FIFO, never opens a device for real, never reads more
/// than `most` bytes.
pub fn read_file(root: impl AsFd, path: &str, most: usize) -> Result<Vec<u8>> {
    use std::io::Read;
    let flags = (OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let place = file::open_at(&root, &text(path)?, libc::O_PATH, 0, file::IN_ROOT | file::NO_MAGIC_LINKS)?;
    if fstat(&place)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(sys::Error(Errno::EINVAL));
    }
    let opened = file::open_at(&root, &text(path)?, flags, 0, file::IN_ROOT | file::NO_MAGIC_LINKS)?;
    if fstat(&opened)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(sys::Error(Errno::EINVAL));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(opened).take(u64::try_from(most).unwrap_or(0)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn root(at: &Path) -> Root {
        Root::new(fs::File::open(at).unwrap().into())
    }

    /// A root with the links that hostile images hold, beside a directory that must stay as it is.
    fn image() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("root/etc")).unwrap();
        fs::create_dir(top.path().join("outside")).unwrap();
        symlink("../../../outside", top.path().join("root/up")).unwrap();
        symlink(top.path().join("outside"), top.path().join("root/absolute")).unwrap();
        symlink("../run/systemd/resolv.conf", top.path().join("root/etc/resolv.conf")).unwrap();
        symlink("loop", top.path().join("root/loop")).unwrap();
        top
    }

    #[test]
    fn what_is_made_stays_in_the_root() {
        let top = image();
        let root = root(&top.path().join("root"));
        for path in ["up/new", "/absolute/new", "../../outside/new", "/up/../../outside/new", "/a/b/../c"] {
            root.directory(path).unwrap();
            assert_eq!(fs::read_dir(top.path().join("outside")).unwrap().count(), 0, "{path} led outside");
        }
        assert!(top.path().join("root/a/c").is_dir());
        assert!(!top.path().join("root/a/b").exists(), "a component that .. undoes is not made");
    }

    #[test]
    fn a_dangling_link_is_followed_to_where_it_would_lead() {
        let top = image();
        let root = root(&top.path().join("root"));
        root.file("/etc/resolv.conf").unwrap();
        assert!(top.path().join("root/run/systemd/resolv.conf").is_file());
        assert!(top.path().join("root/etc/resolv.conf").is_symlink());
    }

    #[test]
    fn a_link_to_itself_is_refused() {
        let top = image();
        let root = root(&top.path().join("root"));
        assert_eq!(root.directory("/loop/x").map(drop), Err(sys::Error(Errno::ELOOP)));
        assert_eq!(root.find_without_links("/up").map(drop), Err(sys::Error(Errno::ELOOP)));
    }

    #[test]
    fn a_fifo_is_not_read() {
        let top = image();
        nix::unistd::mkfifo(&top.path().join("root/etc/passwd"), Mode::S_IRWXU).unwrap();
        let root = root(&top.path().join("root"));
        assert_eq!(read_file(&root, "/etc/passwd", 100), Err(sys::Error(Errno::EINVAL)));
    }
}
