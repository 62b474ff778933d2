//! The few I/O ports of a PC that a kernel or its agent uses on purpose. All others are not there.

use super::bus::Target;
use super::end::{End, Ended};
use super::timeline::Timeline;
use crate::device::console::Console;
use std::sync::Arc;

/// The keyboard controller, of which only the reset line is connected.
pub struct ResetLine(pub Arc<End>);

impl Target for ResetLine {
    /// Its status: nothing to read, ready to be written. A kernel waits for that before it resets.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first() == Some(&PULSE_RESET) {
            self.0.report(Ended::Reset);
        }
    }
}

/// A port to which guest software writes a number at a point of its start that it wants to see in the timeline.
pub struct Marks(pub Arc<Timeline>);

impl Target for Marks {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(mark) = data.first() {
            self.0.mark(*mark);
        }
    }
}

impl Target for Console {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.read(u16::try_from(offset).unwrap_or(u16::MAX), data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.write(u16::try_from(offset).unwrap_or(u16::MAX), data);
    }
}

/// The keyboard controller's command port.
pub const RESET_PORT: u16 = 0x64;
/// The command that pulls the processor's reset line.
const PULSE_RESET: u8 = 0xfe;
/// Where guest software leaves its marks.
pub const MARK_PORT: u16 = 0xf4;
