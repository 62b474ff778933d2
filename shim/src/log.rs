//! The shim's log: lines into the FIFO `log` in the bundle, which containerd copies into its own.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

static LOG: OnceLock<File> = OnceLock::new();

/// Opens it. Both ways, so that neither opening nor writing needs a reader: containerd may be gone for a while.
pub fn begin() {
    let opened = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("log");
    if let Ok(file) = opened {
        let _ = LOG.set(file);
    }
}

/// Writes a line, if there is room for it: nothing waits for a log.
pub fn line(level: &str, message: &str) {
    if let Some(mut file) = LOG.get() {
        let now = humantime::format_rfc3339_nanos(std::time::SystemTime::now());
        // One write: lines do not mix.
        let line = format!("time=\"{now}\" level={level} msg={message:?} runtime=io.containerd.husk.v2\n");
        let _ = file.write_all(line.as_bytes());
    }
}

/// Something that nobody else will report went wrong.
pub fn error(message: &str) {
    line("error", message);
}
