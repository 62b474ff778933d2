//! The file in which a caller wants to find a pid.

use super::error::{ContainerError, host};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the number alone (callers parse the raw bytes) under another name in the same directory, and renames it: who
/// waits for the file to appear finds it whole.
pub fn write(path: &Path, pid: i32) -> Result<(), ContainerError> {
    let name = path
        .file_name()
        .ok_or_else(|| ContainerError::BadRequest(format!("the pid file {path:?} has no name")))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(host("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_number_and_no_newline_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init.pid");
        write(&path, 4711).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"4711");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_that_names_the_file() {
        let error = write(Path::new("/no/such/directory/pid"), 1).unwrap_err();
        assert_eq!(crate::error::chain(&error), "open /no/such/directory/pid: no such file or directory");
    }
}
