//! What a guest may do to its devices.

pub use super::fs::fuzzing as fs;
pub use super::rng::fuzzing as queue;
pub use super::transport::fuzzing as registers;
pub use super::vsock::fuzzing as vsock;

use super::console::{Console, KernelLog, PORTS};

/// The serial port: register writes, then what of it is shown to people.
pub fn console(bytes: &[u8]) {
    let log = KernelLog::new();
    let console = Console::new(log.clone());
    for access in bytes.chunks(3) {
        if let [offset, data @ ..] = access {
            console.write(u16::from(*offset) % PORTS, data);
            console.read(u16::from(*offset) % PORTS, &mut [0; 2]);
        }
    }
    let shown = log.tail(100);
    assert!(shown.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "{shown:?}");
}
