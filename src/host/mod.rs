//! Thin safe wrappers over the host kernel.
