//! Thin safe wrappers over the host kernel.

pub mod capability;
pub mod mount;
pub mod namespace;
