//! What a guest may do to its devices.

pub use super::fs::fuzzing as fs;
pub use super::mem::fuzzing::requests as mem;
pub use super::rng::fuzzing as queue;
pub use super::transport::fuzzing as registers;
pub use super::vsock::fuzzing as vsock;

use super::console::{Console, KernelLog, PORTS};
use super::net::{Header, Offloads, pairs_wanted};

/// The network: what stands before a frame of any length, under any agreement, and a command of the control queue.
pub fn net(bytes: &[u8]) {
    let Some((header, rest)) = bytes.split_first_chunk() else { return };
    let Some(([agreed, most, l0, l1, l2], command)) = rest.split_first_chunk() else { return };
    let has = |bit: u8| agreed & bit != 0;
    let agreed = Offloads { checksum: has(1), tcp4: has(2), tcp6: has(4), ecn: has(8), udp: has(16) };
    let length = usize::try_from(u32::from_le_bytes([*l0, *l1, *l2, 0])).expect("it is wide enough");
    if let Ok(header) = Header::parse(header, length, agreed) {
        let bytes = header.bytes();
        assert_eq!(Header::parse(&bytes, length, agreed), Ok(header));
        // What the kernel is asked to do lies in the frame, and is what was agreed upon.
        let [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1, ..] = bytes;
        let half = |low, high| usize::from(u16::from_le_bytes([low, high]));
        assert!(flags == 0 || agreed.checksum && half(c0, c1) + half(o0, o1) + 2 <= length);
        assert!(kind == 0 || flags == 1 && half(s0, s1) > 0 && half(l0, l1) <= length);
        assert!(kind & 0x80 == 0 || agreed.ecn);
    }
    let most = u16::from(*most);
    if let Some(pairs) = pairs_wanted(command, most) {
        assert!(pairs >= 1 && pairs <= most);
    }
}

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
