//! Real guests and real callers: what the tests in `tests/it` are written with.
//!
//! The test binary runs as root on a machine whose KVM runs guests (the emulated machine, where the developer's does not).
//! It is told where things are by its environment:
//!
//! | variable | what |
//! |---|---|
//! | `HUSK` | the `husk` under test |
//! | `HUSK_STOPPING` | the same, made with the feature `fault-points` |
//! | `HUSK_EVIL_AGENT` | the program of the package `husk-evil-agent` |
//! | `HUSK_EVIL_GUEST` | the program of the package `husk-evil-guest` |
//! | `HUSK_BUSYBOX` | a busybox root filesystem, unpacked |
//! | `HUSK_DEBIAN` | a Debian root filesystem, unpacked |
//! | `HUSK_WORK` | another, with what real work takes |
//!
//! A test makes a [`bundle::Bundle`], lets a [`runtime::Runtime`] (husk, or runc as the oracle) do something with it, and ends with
//! the [`census::Census`] equal to what it was before: no process, mount, link, cgroup or state file is left.

pub mod bundle;
pub mod census;
pub mod created;
pub mod init;
pub mod network;
pub mod outside;
pub mod pod;
pub mod pty;
pub mod qemu;
pub mod running;
pub mod runtime;
pub mod scenario;
pub mod systemd;
pub mod template;
pub mod traffic;
pub mod virtiofsd;
