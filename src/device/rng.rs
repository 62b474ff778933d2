//! Entropy for the guest.
