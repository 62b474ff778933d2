//! Templates as their owner sees them: made and tried, asked about, removed.

use super::rehearsal;
use crate::config::machine;
use crate::config::operator::Operator;
use crate::error::chain;
use crate::machine::Parts;
use crate::machine::order::MachineConfig;
use crate::machine::template::{self, Template};
use std::fs;
use std::path::{Path, PathBuf};

/// A template that was made.
pub struct Made {
    /// What to tell of it, in a line.
    pub told: String,
    /// Why a first start from it was not made; later ones are slower than they could be then.
    pub not_tried: Option<String>,
}

/// The machine of a container without limits, of this size if one is named.
pub fn machine(operator: &Operator, vcpus: Option<u8>, memory_mib: Option<u32>) -> MachineConfig {
    let config = machine::unlimited(operator);
    MachineConfig {
        vcpus: vcpus.unwrap_or(config.vcpus),
        memory_mib: memory_mib.unwrap_or(config.memory_mib),
        ..config
    }
}

/// Makes the template for such machines, and tries it. `example` is the text of a specification to try it with.
pub fn create(directory: &Path, config: &MachineConfig, example: &str) -> Result<Made, String> {
    let made = template::make(directory, config).map_err(|error| chain(&error))?;
    let mut told = format!(
        "{}: {} vcpus, {} MiB of memory, {} KiB of it filled, made in {} ms",
        made.path.display(),
        config.vcpus,
        config.memory_mib,
        made.bytes / 1024,
        made.took.as_millis()
    );
    let not_tried = match first_start(directory, config, example) {
        Ok(changed) => {
            told.push_str(&format!("; a start changes {} KiB", changed / 1024));
            None
        }
        Err(reason) => Some(reason),
    };
    Ok(Made { told, not_tried })
}

/// Starts a container from the new template, and notes in it what that changed: how many bytes.
fn first_start(directory: &Path, config: &MachineConfig, example: &str) -> Result<u64, String> {
    let template = find(directory, config)?;
    let touched = rehearsal::rehearse(directory, config, &template, example)
        .map_err(|error| format!("a first start from it: {}", chain(&error)))?;
    let changed = touched.bytes();
    template.note(directory, config, touched).map_err(|error| chain(&error))?;
    Ok(changed)
}

/// Whether starts of such machines are made from a template; if not, why.
pub fn status(directory: &Path, config: &MachineConfig) -> Result<(), String> {
    let told = fs::read_to_string(attempt(directory, config)).unwrap_or_default();
    let failed = if told.is_empty() { told } else { format!("; one could not be made: {told}") };
    find(directory, config).map(drop).map_err(|reason| reason + &failed)
}

/// Where an attempt to make such a machine's template beside a start is noted ([`super::template_maker`]): empty, or why it
/// failed.
pub(super) fn attempt(directory: &Path, config: &MachineConfig) -> PathBuf {
    directory.join(format!("{}{ATTEMPT}", template::stem(config)))
}

/// How the names of such notes end.
pub(super) const ATTEMPT: &str = ".attempt";

fn find(directory: &Path, config: &MachineConfig) -> Result<Template, String> {
    let parts = Parts::find(config).map_err(|error| chain(&error))?;
    Template::find(directory, config, &parts).map_err(|error| chain(&error))
}

/// Removes all templates, and what is noted of attempts to make some; how many templates there were.
pub fn remove(directory: &Path) -> Result<usize, String> {
    let removed = template::remove_all(directory, ATTEMPT);
    removed.map_err(|error| format!("{}: {}", directory.display(), chain(&error)))
}
