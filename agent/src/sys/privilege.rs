//! What a process may do: capabilities, no_new_privs, the system call filter, the kernel's view of who may look at it.

use super::{Error, Result, returned};

/// One prctl(2) with up to two arguments.
fn prctl(option: i32, second: u64, third: u64) -> Result<()> {
    // SAFETY: only options that take numbers are passed by the functions below.
    returned(libc::c_long::from(unsafe { libc::prctl(option, second, third, 0u64, 0u64) }))?;
    Ok(())
}

/// Makes this process (and its children until they execute a program) opaque: no ptrace, no reading of /proc/PID/exe or
/// /proc/PID/fd by anyone without CAP_SYS_PTRACE in the guest's own user namespace.
pub fn hide() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Whether capabilities survive the coming change of user id.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0)
}

/// Drops one capability from the bounding set. EINVAL: the kernel has no such capability.
pub fn drop_from_bounding(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0)
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)
}

/// Adds one capability to the ambient set.
pub fn raise_ambient(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability))
}

/// The three sets of capset(2), bit N for capability N.
#[derive(Debug, Clone, Copy)]
pub struct Sets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

/// capset(2).
pub fn set_capabilities(sets: Sets) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let half = |shift: u32| {
        let part = |set: u64| u32::try_from((set >> shift) & 0xffff_ffff).unwrap_or(0);
        Half {
            effective: part(sets.effective),
            permitted: part(sets.permitted),
            inheritable: part(sets.inheritable),
        }
    };
    let header = Header { version: 0x2008_0522, pid: 0 }; // _LINUX_CAPABILITY_VERSION_3
    let halves = [half(0), half(32)];
    // SAFETY: version 3 reads a header and two halves.
    returned(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })?;
    Ok(())
}

/// Loads a seccomp filter: `filter` holds `struct sock_filter`s, 8 bytes each.
pub fn load_filter(filter: &[u8], flags: u32) -> Result<()> {
    let program: Vec<libc::sock_filter> = filter
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let length = u16::try_from(program.len()).map_err(|_| Error(nix::errno::Errno::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions and copies them; it never writes through the pointer.
    returned(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    Ok(())
}
