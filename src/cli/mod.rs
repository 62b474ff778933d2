//! One file per verb.

pub mod stand_in;
