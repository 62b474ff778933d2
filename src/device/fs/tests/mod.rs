//! The file server, driven without a guest: by request bytes (`client`), by a virtqueue (`queue`), and by the kernel of
//! the machine that runs the tests, through /dev/fuse (`mounted`).

mod client;
mod hostile;
mod model;
mod mount;
mod mounted;
mod operations;
mod queue;
mod random;
mod sockets;
mod state;
mod tree;
mod whiteouts;

/// Says why a test is not run; never in silence.
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Whether the test may change owners and make devices.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
