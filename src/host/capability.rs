//! Capabilities of the calling thread (capabilities(7)). They belong to threads, not to processes: a thread that is
//! made begins with those of its maker.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};
use std::io;

/// Takes from the calling thread all capabilities but `kept`, from every set: permitted, effective and bounding keep
/// `kept`; inheritable and ambient end empty.
pub fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last one that the kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    set(kept)
}

/// Takes from the calling thread all capabilities but `kept`, which it has. The bounding set stays as it is.
pub fn narrow(kept: CapabilitySet) -> io::Result<()> {
    set(kept)
}

/// Takes all capabilities from the calling thread. The bounding set stays as it is: where no privileges can be gained
/// (no_new_privs) it means nothing.
pub fn drop_all() -> io::Result<()> {
    set(CapabilitySet::empty())
}

fn set(kept: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_thread_keeps_what_it_asks_for_and_no_more() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to have capabilities to drop");
            return;
        }
        std::thread::spawn(|| {
            keep_only(CapabilitySet::CHOWN | CapabilitySet::SETFCAP).unwrap();
            for field in ["CapPrm:", "CapEff:", "CapBnd:"] {
                assert_eq!(status(field), "0000000080000001", "{field}");
            }
            assert_eq!(status("CapInh:"), "0000000000000000");
            drop_all().unwrap();
            assert_eq!(status("CapPrm:"), "0000000000000000");
            assert_eq!(status("CapEff:"), "0000000000000000");
        })
        .join()
        .unwrap();
        assert_ne!(status("CapEff:"), "0000000000000000", "other threads keep theirs");
    }
}
