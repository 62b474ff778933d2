//! Landlock: what of it the host's kernel has, and a domain without paths.
#![allow(unsafe_code)] // landlock_create_ruleset(2) has no safe wrapper for asking its version

use landlock::{
    AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use std::io;

/// The version of its interface; `None` when the kernel lacks it or it is switched off.
pub fn version() -> Option<u32> {
    const VERSION_FLAG: libc::c_uint = 1; // LANDLOCK_CREATE_RULESET_VERSION, `linux/landlock.h`
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no structure (null and 0) and makes no descriptor; it returns a number.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION_FLAG) };
    u32::try_from(result).ok().filter(|version| *version > 0)
}

/// From here on the calling thread, and those that it makes, can bind no TCP port and connect to none but `ports`, connect to no
/// abstract socket and signal no process that is not as confined as they are: as far as this kernel has all that. How much of
/// it, is returned.
///
/// Files are left out: who may rename something from one directory into another has to be told beforehand where, and what a
/// machine shares with containers that join it is not known beforehand.
pub fn confine(ports: &[u16]) -> io::Result<Confined> {
    let tcp = AccessNet::BindTcp | AccessNet::ConnectTcp;
    let rules = ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    let status = Ruleset::default()
        .handle_access(tcp)
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(rules))
        .and_then(RulesetCreated::restrict_self)
        .map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confined::Wholly,
        RulesetStatus::PartiallyEnforced => Confined::InPart,
        RulesetStatus::NotEnforced => Confined::NotAtAll,
    })
}

/// How much of a confinement this kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// All of it (Linux 6.12).
    Wholly,
    /// Some (Linux 6.7 on: TCP).
    InPart,
    /// Nothing.
    NotAtAll,
}
