//! The agent's log: the kernel's. Its level `err` reaches the host through the console's ring.

use std::io::Write;

/// Something that should not be. Never fails, never waits.
pub fn error(text: &str) {
    let line: String =
        text.chars().take(512).map(|letter| if letter == '\n' { ' ' } else { letter }).collect();
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<3>husk-agent: {line}\n").as_bytes());
    }
}
