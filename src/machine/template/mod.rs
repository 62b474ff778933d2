//! Starts from a template: a guest that was booted once, up to where its agent waits for a first word of the host, and
//! of which every later start is a copy.
//!
//! ```text
//!   make:   assemble -> run, vsock held back -> the agent has called and sleeps -> vcpus, registers, memory -> two files
//!   start:  find (does it fit?) -> memory mapped copy-on-write -> registers, vcpus as they were -> run -> the agent is answered
//! ```
//! What makes this simple is where it stops. The agent's call to the host is under way and unanswered, and nothing else
//! was asked of any device but random numbers: so devices have nothing to restore but their registers, and a container's
//! shares, network and streams are given to a copy as they are to a machine that boots. After the copy's agent is
//! answered, it is told first to renew its kernel's random numbers and its clock.
//!
//! | file, in the operator's directory | holds |
//! |---|---|
//! | `VCPUSxMEMORY.template` | [`State`]: what it was made from, registers, where each part of the memory lies |
//! | `VCPUSxMEMORY-NUMBER.memory` | the memory, whole pages of it that are not empty |
//!
//! The state names the memory file by its inode and the moment of its last change, so that one that was cut short or
//! altered does not fit, without a look at its bytes. A template that does not fit is never a failure of a start: the
//! start is a cold one then ([`Unfit`] says why). Both files belong to root alone, who could as well replace the kernel.

mod make;
mod restore;
mod state;
mod stretches;
mod touched;

pub use make::{Made, MakeError, make, remove_all};
pub use state::{State, Unfit};
pub use touched::Touched;

use super::Parts;
use super::order::MachineConfig;
use state::MadeFrom;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A template that fits, open.
pub struct Template {
    state: State,
    memory: File,
}

impl Template {
    /// Finds the template for such a machine in `directory`.
    pub fn find(directory: &Path, config: &MachineConfig, parts: &Parts) -> Result<Template, Unfit> {
        let state = State::read(&path(directory, config))?;
        state.made_from.fits(&MadeFrom::of(config, parts).map_err(Unfit::Unreadable)?)?;
        let memory = state.memory.open(directory)?;
        Ok(Template { state, memory })
    }

    /// Notes in the template in `directory` what a first start from it has changed.
    pub fn note(mut self, directory: &Path, config: &MachineConfig, touched: Touched) -> io::Result<()> {
        self.state.touched = touched;
        self.state.write(&path(directory, config))
    }
}

/// Where the state of such a machine's template is.
fn path(directory: &Path, config: &MachineConfig) -> PathBuf {
    directory.join(format!("{}.{EXTENSION}", stem(config)))
}

/// What the names of such a machine's template's files begin with.
fn stem(config: &MachineConfig) -> String {
    format!("{}x{}", config.vcpus, config.memory_mib)
}

const EXTENSION: &str = "template";
