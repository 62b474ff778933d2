//! One connection of a hostile guest: its packets, in turn with what the host does.

use super::connection::{Connection, Received, WINDOW};
use super::packet::{HEADER_LENGTH, Header};

/// Each 45 bytes: what the host does first, and a packet's header.
pub fn connection(bytes: &[u8]) {
    let mut steps = bytes.chunks_exact(HEADER_LENGTH.saturating_add(1)).filter_map(|step| {
        let (host, header) = step.split_first()?;
        Some((*host, Header::parse(header.try_into().ok()?)))
    });
    let Some((_, first)) = steps.next() else { return };
    let mut connection = Connection::accept(&first);
    // What lies in our buffer, as the link would keep it.
    let mut kept: u32 = 0;
    for (host, header) in steps {
        match host % 8 {
            0 => {
                let taken = kept.min(u32::from(host) << 4);
                kept = kept.saturating_sub(taken);
                connection.consumed(taken);
            }
            1 => {
                let credit = connection.credit();
                if credit > 0 {
                    connection.send(credit.min(4096));
                }
            }
            2 => connection.stop_sending(),
            3 => connection.stop_receiving(),
            4 => connection.reset(),
            _ => {
                while connection.owes() {
                    assert!(connection.pay().is_some(), "it owes a packet and has none");
                }
            }
        }
        if connection.is_over() {
            return;
        }
        if let Received::Data(length) = connection.receive(&header) {
            kept = kept.saturating_add(length);
            assert!(kept <= WINDOW, "more was taken than there is room for: {kept}");
        }
    }
}
