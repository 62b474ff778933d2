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
//! A start of a larger machine is made from the template of a smaller one, and gets the rest while it runs
//! ([`super::growth`]), before its container is made.
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
    /// Finds the template for such a machine in `directory`: of its size, or else the largest that is smaller, to which
    /// memory can be plugged. (A kernel of the operator's may not know how.)
    pub fn find(directory: &Path, config: &MachineConfig, parts: &Parts) -> Result<Template, Unfit> {
        match Template::open(directory, config, parts) {
            Err(Unfit::Missing) if config.kernel.is_none() => {
                let memory_mib = largest_below(directory, config).ok_or(Unfit::Missing)?;
                Template::open(directory, &MachineConfig { memory_mib, ..config.clone() }, parts)
            }
            found => found,
        }
    }

    /// How much memory its guest has.
    pub fn memory_mib(&self) -> u32 {
        self.state.made_from.memory_mib()
    }

    /// Opens the one of just that size.
    fn open(directory: &Path, config: &MachineConfig, parts: &Parts) -> Result<Template, Unfit> {
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

/// The memory of the largest template for as many vcpus and less memory, going by names alone.
fn largest_below(directory: &Path, config: &MachineConfig) -> Option<u32> {
    let sizes = std::fs::read_dir(directory).ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let (vcpus, memory) = name.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('x')?;
        let memory = memory.parse().ok().filter(|memory| *memory < config.memory_mib)?;
        (vcpus.parse() == Ok(config.vcpus)).then_some(memory)
    });
    sizes.max()
}

/// What the names of such a machine's template's files begin with.
pub fn stem(config: &MachineConfig) -> String {
    format!("{}x{}", config.vcpus, config.memory_mib)
}

/// What the names of states end with.
pub const EXTENSION: &str = "template";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_largest_of_those_that_are_smaller_is_taken_and_other_files_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let config = |vcpus, memory_mib| MachineConfig {
            vcpus,
            memory_mib,
            most_memory_mib: memory_mib,
            headroom_mib: 0,
            kernel: None,
            initrd: None,
            command_line: String::new(),
            system_calls: Default::default(),
            boot_timeout_ms: 1,
            templates: None,
        };
        let below = |vcpus, memory_mib| largest_below(directory.path(), &config(vcpus, memory_mib));
        assert_eq!(below(1, 1024), None);
        for name in ["1x128", "1x512", "1x2048", "2x700"] {
            File::create(directory.path().join(format!("{name}.template"))).unwrap();
        }
        for name in ["1x1000-77.memory", "1x900.templates", "x800.template", "1x-5.template", ".rehearsal-1"]
        {
            File::create(directory.path().join(name)).unwrap();
        }
        assert_eq!(
            [below(1, 1024), below(1, 512), below(1, 128), below(1, 99)],
            [Some(512), Some(128), None, None]
        );
        assert_eq!([below(2, 1024), below(3, 1024)], [Some(700), None]);
    }
}
