//! Capabilities of the calling thread (capabilities(7)). They belong to threads, not to processes.
#![allow(unsafe_code)] // capset(2) and prctl(2) have no wrapper

use std::io;

/// A capability that somebody here needs. Numbers as in linux/capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Change owners of files.
    Chown = 0,
    /// Pass by permission checks.
    DacOverride = 1,
    /// Pass by read permission checks, and open by handle.
    DacReadSearch = 2,
    /// Act as a file's owner.
    Fowner = 3,
    /// Keep set-id bits.
    Fsetid = 4,
    /// Change the group.
    Setgid = 6,
    /// Change the user.
    Setuid = 7,
    /// Make device nodes.
    Mknod = 27,
    /// Set file capabilities.
    Setfcap = 31,
}

/// Takes from the calling thread all capabilities but `kept`, from every set: permitted and effective keep `kept`,
/// the bounding set too; inheritable and ambient end empty.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let mask = kept.iter().fold(0u64, |mask, capability| mask | 1 << (*capability as u8));
    // SAFETY: prctl with these operations takes plain numbers.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for number in (0..64u64).filter(|number| mask >> number & 1 == 0) {
            if libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) != 0 {
                let error = io::Error::last_os_error();
                // Beyond the last one that the kernel knows.
                if error.raw_os_error() == Some(libc::EINVAL) {
                    break;
                }
                return Err(error);
            }
        }
    }
    set(mask)
}

/// Takes all capabilities from the calling thread. The bounding set stays as it is: without privileges to gain (see
/// `no_new_privs`) it means nothing.
pub fn drop_all() -> io::Result<()> {
    set(0)
}

fn set(mask: u64) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |bits| Data { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(mask as u32), half((mask >> 32) as u32)];
    // SAFETY: both point to initialised structures of the layout that version 3 wants.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

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
            keep_only(&[Capability::Chown, Capability::Setfcap]).unwrap();
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
