//! Thin safe wrappers over the host kernel.

pub mod bus;
pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod deadline;
pub mod descriptor;
pub mod fault;
pub mod file;
pub mod identity;
pub mod landlock;
pub mod localhost;
pub mod lock;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod network;
pub mod pagemap;
pub mod pidfd;
pub mod proc;
pub mod seccomp;
pub mod spawn;
pub mod systemd;
pub mod tap;
pub mod user;
