//! Files that must be whole: written under another name and renamed, read with a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `bytes` to `directory/name` so that a reader, even after a crash at any point, sees the old file or the new
/// one, never a part: temporary name, fsync, rename, fsync of the directory. The file gets mode 0600.
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, directory.join(name))?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // A full disk must not leave a half file behind either; the error is the one worth telling.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Reads a regular file of at most `longest` bytes. Never blocks on a FIFO and never opens a device.
pub fn read_bounded(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    read_to_bound(file, longest)
}

/// Reads what a stream has to give, up to `longest` bytes.
pub fn read_to_bound(stream: impl Read, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(longest.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > longest {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {longest} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_holds_the_new_bytes_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        replace(directory.path(), "f", b"one").unwrap();
        replace(directory.path(), "f", b"two").unwrap();
        assert_eq!(std::fs::read(directory.path().join("f")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_too_long_a_fifo_and_a_device_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("long");
        std::fs::write(&long, [0; 11]).unwrap();
        assert!(read_bounded(&long, 10).is_err());
        assert_eq!(read_bounded(&long, 11).unwrap().len(), 11);
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_bounded(&fifo, 10).is_err());
        assert!(read_bounded(Path::new("/dev/zero"), 10).is_err());
    }
}
