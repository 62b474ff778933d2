//! What an evil guest does, as far as it can be said without a machine: which acts there are and how it is told to perform one,
//! names that mean harm, and FUSE requests around them. The program of this crate boots on husk in the place of Linux and
//! performs them; tests on the host tell it what to do and read what it says.
#![no_std]

pub mod message;
pub mod names;
pub mod order;
pub mod random;
