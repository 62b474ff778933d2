//! What can be done, a file each. Each says how much it did.

pub mod greeting;
pub mod names;
pub mod packets;
pub mod ports;
pub mod registers;
pub mod requests;
pub mod rings;
