//! Named points of a container's life, for tests that end a process just there, or another while this one is just there.
//!
//! With the feature `fault-points`, whoever comes to the point that `HUSK_FAULT_POINT` names stops (SIGSTOP) until it is
//! told to go on. No release has that feature; without it a point is nothing.

/// Where a process is told at which point it is to stop. Passed on to the processes that husk starts.
#[cfg(feature = "fault-points")]
pub const VARIABLE: &str = "HUSK_FAULT_POINT";

/// Says where the process is.
#[cfg(feature = "fault-points")]
pub fn point(name: &str) {
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
    }
}

/// Says where the process is.
#[cfg(not(feature = "fault-points"))]
pub fn point(_: &str) {}
