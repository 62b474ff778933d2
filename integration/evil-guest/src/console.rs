//! Words on the serial port: the only way to be heard on the host.

use crate::port;
use core::fmt::{self, Write};

/// Says a line.
pub fn say(line: fmt::Arguments<'_>) {
    let mut text = Line { bytes: [0; 1000], length: 0 };
    let _ = text.write_fmt(line);
    port::write_string(port::SERIAL, b"\n");
    port::write_string(port::SERIAL, text.bytes.get(..text.length).unwrap_or_default());
    port::write_string(port::SERIAL, b"\n");
}

/// A line; what is too long is cut off.
struct Line {
    bytes: [u8; 1000],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let to = self.bytes.get_mut(self.length).ok_or(fmt::Error)?;
            *to = byte;
            self.length += 1;
        }
        Ok(())
    }
}
