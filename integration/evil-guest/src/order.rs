//! What the guest is told to do, in words on the kernel's command line: `evil=registers seed=7 size=1000 end=reset`.

use core::fmt;

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub act: Act,
    /// Which random numbers to do it with.
    pub seed: u64,
    /// How often, for acts that can be done for as long as one likes.
    pub size: u64,
    /// What to do then.
    pub end: End,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Read and write the devices' registers, and addresses near them, at random and out of order.
    Registers,
    /// The same with all I/O ports.
    Ports,
    /// Give every device queues and rings that make no sense.
    Rings,
    /// Ask both file servers for every operation that takes a name, with names that lead out.
    Names,
    /// Ask them for anything at random: wrong lengths, numbers that stand for nothing.
    Requests,
    /// Send packets of every kind to ports that nobody offers.
    Packets,
    /// Connect as the agent would, and speak nonsense.
    Greeting,
}

/// What to do when the act is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Ask for a reset, which ends the guest.
    Reset,
    /// Make a file of the name [`SPINS`] in the container's root, then loop for ever with interrupts off.
    Spin,
}

/// The file by which the host learns that the guest loops.
pub const SPINS: &str = "evil-guest-spins";

/// Begins a line that says that something was not refused which has to be, or that the guest could not do its act.
pub const FAILED: &str = "evil: failed: ";

/// Begins the last line of an act that was done.
pub const DONE: &str = "evil: done: ";

const ACTS: [(&str, Act); 7] = [
    ("registers", Act::Registers),
    ("ports", Act::Ports),
    ("rings", Act::Rings),
    ("names", Act::Names),
    ("requests", Act::Requests),
    ("packets", Act::Packets),
    ("greeting", Act::Greeting),
];

const ENDS: [(&str, End); 2] = [("reset", End::Reset), ("spin", End::Spin)];

impl Order {
    /// Finds the order on a command line that says other things too.
    pub fn find(line: &str) -> Option<Order> {
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let number = |key| value(key)?.parse().ok();
        Some(Order {
            act: called(&ACTS, value("evil")?)?,
            seed: number("seed")?,
            size: number("size")?,
            end: called(&ENDS, value("end")?)?,
        })
    }
}

/// As it is found again.
impl fmt::Display for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { act, seed, size, end } = self;
        write!(out, "evil={act} seed={seed} size={size} end={}", name(&ENDS, end))
    }
}

impl fmt::Display for Act {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(name(&ACTS, self))
    }
}

fn called<T: Copy>(all: &[(&str, T)], wanted: &str) -> Option<T> {
    all.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
}

fn name<T: PartialEq>(all: &[(&'static str, T)], wanted: &T) -> &'static str {
    all.iter().find(|(_, value)| value == wanted).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::format;

    #[test]
    fn an_order_is_found_among_other_words() {
        for (_, act) in ACTS {
            for (_, end) in ENDS {
                let order = Order { act, seed: 7, size: 1 << 40, end };
                assert_eq!(Order::find(&format!("quiet {order} x=1")), Some(order));
            }
        }
        for line in ["", "quiet", "evil=nothing seed=1 size=1 end=reset", "evil=ports seed=x size=1 end=spin"]
        {
            assert_eq!(Order::find(line), None, "{line}");
        }
    }
}
