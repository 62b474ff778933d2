//! Hermetic tests: no KVM, no root, nothing outside a temporary directory. One binary.

mod bad_input;
mod bundles;
mod command_line;
mod dependencies;
mod docs;
mod fields;
mod ids;
mod imports;
mod kubernetes;
mod operator_file;
mod state_files;
mod support;
