//! How a process ended, in the one byte that its caller gets.

use nix::sys::wait::WaitStatus;

/// A container that was killed by request, whether or not its guest took part.
pub const KILLED: u8 = 137;

/// The guest ended under the container (a panic, a reset, an agent that broke the protocol).
pub const GUEST_LOST: u8 = 255;

/// The status of a process that has ended: its exit code, or 128 + N for signal N. `None` if it has not ended.
pub fn code_of(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        WaitStatus::Signaled(_, signal, _) => u8::try_from((signal as i32).saturating_add(128)).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::unistd::Pid;

    #[test]
    fn a_signal_counts_as_128_and_its_number() {
        let pid = Pid::from_raw(1);
        assert_eq!(code_of(WaitStatus::Exited(pid, 3)), Some(3));
        assert_eq!(code_of(WaitStatus::Signaled(pid, Signal::SIGKILL, false)), Some(KILLED));
        assert_eq!(code_of(WaitStatus::Stopped(pid, Signal::SIGSTOP)), None);
    }
}
