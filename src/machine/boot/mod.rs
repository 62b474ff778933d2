//! What is put into guest memory before the first instruction: kernel, initrd, command line. How the processor's
//! architecture wants to be told about them stands in [`super::arch`].

pub mod command_line;
pub mod initrd;
pub mod kernel;
