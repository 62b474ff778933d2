//! Which system calls the calling thread may make (seccomp(2)): lists of them, with what their arguments may be, and the program
//! for the kernel that they become when husk is built. A start only hands it over.
//!
//! ```text
//!   another architecture's call ------------------------------------------------> otherwise
//!   the number: one half of the sorted list, a half of that, ... a single call --> not that one: otherwise
//!     nothing more to look at ----------------------------------------------------> let it pass | answer it: unknown
//!     its arguments, in a block of their own ------------------------------------> let it pass | otherwise
//! ```
//! So a call takes six comparisons where there are 55, and so does each of the thousand numbers that the kernel tries when a
//! program is handed over, to know which calls it need not ask about again.
//!
//! A thread's lists can only be narrowed: one that is made begins with those of its maker, and what enters more may make the
//! calls that are on all of them.
#![allow(unsafe_code)] // seccomp(2) has no safe wrapper

mod program;

use program::Instruction;
use std::io;

/// A system call that may be made.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Its number, `SYS_*`.
    pub number: libc::c_long,
    /// With which arguments.
    pub only: Only,
}

/// What the arguments of a call may be. They are counted from 0; of those that are looked at the kernel takes 32 bits, or uses
/// none but the lower half's bits.
#[derive(Debug, Clone, Copy)]
pub enum Only {
    /// Anything.
    Any,
    /// Anything, but it is not done: the answer is that of a kernel that does not know the call.
    Unknown,
    /// One argument is one of these.
    Among(u8, &'static [u64]),
    /// One argument has none of these bits.
    Without(u8, u64),
    /// One argument has all of these bits.
    With(u8, u64),
    /// One argument is the number of the calling process.
    OwnProcess(u8),
}

/// What comes of a call that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// The process is killed by SIGSYS, at once and as a whole.
    Kill,
    /// The kernel logs it (audit), and does it.
    Log,
}

/// Lists ([`Program::of`]) in the form in which the kernel takes them, but for what is known only when they are entered.
#[derive(Clone, Copy)]
pub struct Program {
    instructions: [Instruction; program::MOST],
    length: usize,
    /// The comparison with the number of the calling process; 0: there is none.
    own_process: usize,
}

impl Program {
    /// From here on it holds for the calling thread, and for those that it makes. There is no way back.
    pub fn enter(&self, otherwise: Otherwise) -> io::Result<()> {
        let mut instructions = self.instructions;
        let program = instructions.get_mut(..self.length).unwrap_or_default();
        if let (Otherwise::Log, Some(last)) = (otherwise, program.last_mut()) {
            last.value = libc::SECCOMP_RET_LOG;
        }
        if let (1.., Some(comparison)) = (self.own_process, program.get_mut(self.own_process)) {
            comparison.value = std::process::id();
        }
        rustix::thread::set_no_new_privs(true)?;
        let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr().cast() };
        let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::c_ulong::MIN);
        // SAFETY: `program` says where so many instructions are, which have the layout of `sock_filter`; the kernel copies them.
        match unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether this kernel knows filters that kill the whole process (Linux 4.14).
pub fn is_there() -> bool {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the call reads the action, and changes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    result == 0
}
