//! The guest kernel's command line.

use std::fmt::Write;

/// A command line under construction.
#[derive(Debug, Clone)]
pub struct CommandLine {
    text: String,
}

impl CommandLine {
    /// What every guest gets.
    #[allow(clippy::new_without_default)] // `default` would not tell that these are decisions
    pub fn new() -> CommandLine {
        CommandLine { text: ALWAYS.join(" ") }
    }

    /// Names a virtio-mmio device: nothing is probed that is not named.
    pub fn device(&mut self, address: u64, size: u64, line: u32) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, " virtio_mmio.device={}K@{address:#x}:{line}", size >> 10);
    }

    /// Appends the operator's own parameters, which win over ours where the kernel lets the last one win, and ends the
    /// line. `limit` is the room for it, with the final NUL.
    pub fn finish(mut self, operator: &str, limit: usize) -> Result<Vec<u8>, CommandLineError> {
        let operator = operator.trim();
        if let Some(wrong) = operator.chars().find(|character| !(' '..='~').contains(character)) {
            return Err(CommandLineError::Character(wrong));
        }
        if !operator.is_empty() {
            self.text.push(' ');
            self.text.push_str(operator);
        }
        let length = self.text.len();
        if length >= limit {
            return Err(CommandLineError::TooLong {
                length,
                limit: limit.saturating_sub(1),
                own: operator.len(),
            });
        }
        let mut bytes = self.text.into_bytes();
        bytes.push(0);
        Ok(bytes)
    }
}

/// Why a command line cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// Not printable ASCII.
    #[error("the configured kernel parameters contain the character {0:?}; only printable ASCII is allowed")]
    Character(char),
    /// The kernel would cut it off.
    #[error("the kernel command line has {length} bytes, {own} of them configured, and {limit} are possible")]
    TooLong {
        /// All of it.
        length: usize,
        /// What is possible.
        limit: usize,
        /// The operator's part.
        own: usize,
    },
}

/// Each with its reason.
const ALWAYS: &[&str] = &[
    // Every character costs exits: only errors and worse are written; a panic writes everything that belongs to it.
    "quiet",
    // The serial port is there from the first line on and needs no driver; `keep` so that a panic at any time is heard.
    "earlyprintk=serial,ttyS0,115200,keep",
    // A panic ends the machine at once, and its container with it. After a fault of its own the kernel would go on, with what
    // it held then held for ever.
    "panic=-1",
    "oops=panic",
    // By the keyboard controller's reset line: one port write, and never mistaken for a triple fault.
    "reboot=k",
    // KVM's clock tells the frequency, and the host looks after its time stamp counters: no watchdog, no calibration.
    "tsc=reliable",
    // The boot protocol hands a seed over, and devices may be slow or late: begin with good random numbers.
    "random.trust_bootloader=on",
    // No device needs bounce buffers; with more than 3 GiB of memory they would take 64 MiB of it.
    "swiotlb=noforce",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_the_operators_parameters_follow_ours() {
        let mut line = CommandLine::new();
        line.device(0xd000_0000, 4096, 5);
        let text = String::from_utf8(line.finish(" loglevel=7\t", 2048).unwrap()).unwrap();
        assert!(text.starts_with("quiet "), "{text}");
        assert!(text.ends_with(" virtio_mmio.device=4K@0xd0000000:5 loglevel=7\0"), "{text}");
    }

    #[test]
    fn a_line_that_the_kernel_would_cut_is_refused() {
        let length = CommandLine::new().finish("", 2048).unwrap().len();
        let fits = "x".repeat(2048 - length - 1);
        assert_eq!(CommandLine::new().finish(&fits, 2048).unwrap().len(), 2048);
        let error = CommandLine::new().finish(&format!("{fits}x"), 2048).unwrap_err();
        assert_eq!(error, CommandLineError::TooLong { length: 2048, limit: 2047, own: fits.len() + 1 });
    }

    #[test]
    fn characters_that_could_end_it_early_are_refused() {
        for operator in ["a\0b", "a\nb", "\u{e4}", "\u{7f}"] {
            assert!(matches!(CommandLine::new().finish(operator, 2048), Err(CommandLineError::Character(_))));
        }
    }
}
