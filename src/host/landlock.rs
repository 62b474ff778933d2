//! Landlock: what of it the host's kernel has.
#![allow(unsafe_code)] // landlock_create_ruleset(2) has no safe wrapper

/// The version of its interface; `None` when the kernel lacks it or it is switched off.
pub fn version() -> Option<u32> {
    const VERSION_FLAG: libc::c_uint = 1; // LANDLOCK_CREATE_RULESET_VERSION, `linux/landlock.h`
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no structure (null and 0) and makes no descriptor; it returns a number.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION_FLAG) };
    u32::try_from(result).ok().filter(|version| *version > 0)
}
