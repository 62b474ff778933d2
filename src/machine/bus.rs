//! The guest's two address spaces outside memory: I/O ports, and the devices in the memory hole.
//!
//! Built while the machine is assembled, then only read, by all vcpus at once and without a lock. What is not there
//! reads as all ones, and what is written to it is lost, as on a real bus: a guest that probes gets no error and makes
//! no noise.

use std::sync::Arc;

/// Something that answers on a bus. Called by any vcpu's thread, several at a time.
pub trait Target: Send + Sync {
    /// The guest reads at `offset` from the beginning of the target's range. Any width, any alignment.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A bus.
#[derive(Default)]
pub struct Bus {
    /// Sorted, without overlaps.
    ranges: Vec<Slot>,
}

struct Slot {
    first: u64,
    last: u64,
    target: Arc<dyn Target>,
}

impl Bus {
    /// Nothing on it.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Puts `target` at `size` addresses from `first` on.
    pub fn add(&mut self, first: u64, size: u64, target: Arc<dyn Target>) -> Result<(), BusError> {
        let taken = BusError { first, size };
        let Some(last) = size.checked_sub(1).and_then(|more| first.checked_add(more)) else {
            return Err(taken);
        };
        let at = self.ranges.partition_point(|slot| slot.last < first);
        if self.ranges.get(at).is_some_and(|slot| slot.first <= last) {
            return Err(taken);
        }
        self.ranges.insert(at, Slot { first, last, target });
        Ok(())
    }

    /// The guest reads.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((offset, target)) => target.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, target)) = self.find(address, data.len()) {
            target.write(offset, data);
        }
    }

    /// An access that reaches beyond its target's end finds nothing. (A string access to a port arrives as several
    /// accesses' bytes at one address: the first byte decides for ports, see [`Ports`].)
    fn find(&self, address: u64, width: usize) -> Option<(u64, &dyn Target)> {
        let at = self.ranges.partition_point(|slot| slot.last < address);
        let slot = self.ranges.get(at)?;
        let offset = address.checked_sub(slot.first)?;
        let last = address.checked_add(u64::try_from(width).ok()?.checked_sub(1)?)?;
        (last <= slot.last).then_some((offset, &*slot.target))
    }
}

/// The I/O ports: a bus whose accesses may be strings, that is, many bytes for one port.
#[derive(Default)]
pub struct Ports {
    bus: Bus,
}

impl Ports {
    /// Nothing on it.
    pub fn new() -> Ports {
        Ports::default()
    }

    /// Puts `target` at `count` ports from `first` on.
    pub fn add(&mut self, first: u16, count: u16, target: Arc<dyn Target>) -> Result<(), BusError> {
        self.bus.add(first.into(), count.into(), target)
    }

    /// The guest reads from `port`.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        match self.bus.find(port.into(), 1) {
            Some((offset, target)) => target.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes to `port`.
    pub fn write(&self, port: u16, data: &[u8]) {
        if let Some((offset, target)) = self.bus.find(port.into(), 1) {
            target.write(offset, data);
        }
    }
}

/// Two things at one place; a mistake of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{size:#x} addresses at {first:#x} of a bus are taken or impossible")]
pub struct BusError {
    first: u64,
    size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// Reads as its own number; remembers what was written where.
    struct Probe(u8, Mutex<Vec<(u64, Vec<u8>)>>);

    impl Target for Probe {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.1.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn probe(number: u8) -> Arc<Probe> {
        Arc::new(Probe(number, Mutex::default()))
    }

    fn read(bus: &Bus, address: u64) -> [u8; 4] {
        let mut data = [0x55; 4];
        bus.read(address, &mut data);
        data
    }

    #[test]
    fn accesses_reach_the_target_whose_range_holds_them_wholly() {
        let mut bus = Bus::new();
        bus.add(0x2000, 0x1000, probe(2)).unwrap();
        bus.add(0x1000, 0x1000, probe(1)).unwrap();
        assert_eq!(read(&bus, 0x1000), [1; 4]);
        assert_eq!(read(&bus, 0x1010), [0x11; 4]);
        assert_eq!(read(&bus, 0x1ffc), [0xfd; 4]);
        assert_eq!(read(&bus, 0x1ffd), [0xff; 4], "straddles two targets");
        assert_eq!(read(&bus, 0x2000), [2; 4]);
        assert_eq!(read(&bus, 0x2ffd), [0xff; 4], "straddles the end");
        assert_eq!(read(&bus, 0xffe), [0xff; 4], "straddles the beginning");
        assert_eq!(read(&bus, 0x3000), [0xff; 4]);
        assert_eq!(read(&bus, u64::MAX - 1), [0xff; 4]);
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let mut bus = Bus::new();
        bus.add(0x1000, 0x1000, probe(0)).unwrap();
        for (first, size) in
            [(0x1000, 0x1000), (0xfff, 2), (0x1fff, 1), (0, 0x10_0000), (0x5000, 0), (u64::MAX, 2)]
        {
            assert!(bus.add(first, size, probe(0)).is_err(), "{first:#x} {size:#x}");
        }
        bus.add(0xfff, 1, probe(0)).unwrap();
        bus.add(0x2000, 1, probe(0)).unwrap();
    }

    #[test]
    fn a_string_write_to_a_port_arrives_whole() {
        let mut ports = Ports::new();
        let target = probe(0);
        ports.add(0x3f8, 8, target.clone()).unwrap();
        ports.write(0x3f8, b"a longer string than there are ports");
        ports.write(0x400, b"x");
        assert_eq!(*target.1.lock().unwrap(), [(0, b"a longer string than there are ports".to_vec())]);
    }

    proptest! {
        #[test]
        fn any_access_anywhere_is_answered(address: u64, width in 0usize..16) {
            let mut bus = Bus::new();
            bus.add(0xd000_0000, 0x1000, probe(0)).unwrap();
            bus.write(address, &vec![0; width]);
            let mut data = vec![0x55; width];
            bus.read(address, &mut data);
            let inside = (0xd000_0000..0xd000_1000).contains(&address);
            prop_assert!(inside || data.iter().all(|byte| *byte == 0xff));
        }
    }
}
