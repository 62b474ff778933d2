//! One file per verb.

pub mod machine;
pub mod stand_in;
