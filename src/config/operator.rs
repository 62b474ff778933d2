//! The operator's configuration, `/etc/husk/config.toml`: what only the host's administrator may decide.
//!
//! A file that is not there means the defaults. A key that husk does not know is an error, so that a misspelt limit is
//! not a limit that silently is not there. `docs/config.toml` is the documented sample; a test holds the two together.

use super::error::{ConfigError, invalid};
pub use crate::machine::order::SystemCalls;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The most vcpus that a machine can have.
pub const MOST_VCPUS: u8 = 32;
/// The least memory that a machine can boot with, in MiB.
pub const LEAST_MEMORY_MIB: u32 = 64;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operator {
    /// The guest.
    pub machine: Machine,
    /// What the machine may use on the host.
    pub host: Host,
    /// What a bundle may say.
    pub container: Container,
}

/// `[machine]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// A kernel (ELF vmlinux) instead of the embedded one.
    pub kernel: Option<PathBuf>,
    /// An initial RAM file system instead of the embedded one.
    pub initrd: Option<PathBuf>,
    /// Added to the kernel's command line.
    pub kernel_command_line: String,
    /// How long a guest may take to its agent's first message.
    pub boot_timeout_ms: u64,
    /// Whether starts are made from templates.
    pub templates: Templates,
    /// Where those are.
    pub template_directory: PathBuf,
    /// Vcpus of a container without a cpu limit.
    pub vcpus: u8,
    /// The most vcpus of any container.
    pub max_vcpus: u8,
    /// Memory of a container without a memory limit.
    pub memory_mib: u32,
    /// The most memory of any machine; 0 is all that the host has.
    pub max_memory_mib: u32,
    /// What a machine gets beyond the container's memory limit, for the guest's kernel and agent.
    pub headroom_mib: u32,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// What the machine process may use beyond the guest's memory.
    pub memory_room_mib: u32,
    /// What the machine's own threads may use beyond the container's cpu quota, in percent of one cpu.
    pub cpu_room_percent: u32,
    /// What comes of a system call that a thread of the machine process should never make.
    pub system_calls: SystemCalls,
}

/// `[container]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    /// `io.husk.` annotations that bundles may use.
    pub annotations: Vec<String>,
    /// What becomes of `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`.
    pub security_labels: SecurityLabels,
}

/// Whether starts are made from templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Templates {
    /// Every start is a cold one.
    Never,
    /// Where there is one that fits.
    #[default]
    Use,
    /// The same; and where there is none, one is made beside the cold start.
    Make,
}

/// What becomes of labels for security modules that the guest kernel does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityLabels {
    /// The container is refused.
    #[default]
    Refuse,
    /// They are left out: the machine itself is the wall.
    Ignore,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            kernel: None,
            initrd: None,
            kernel_command_line: String::new(),
            boot_timeout_ms: 20_000,
            templates: Templates::default(),
            template_directory: PathBuf::from("/var/cache/husk/templates"),
            vcpus: 1,
            max_vcpus: MOST_VCPUS,
            memory_mib: 512,
            max_memory_mib: 0,
            headroom_mib: 48,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Host { memory_room_mib: 64, cpu_room_percent: 50, system_calls: SystemCalls::Enforce }
    }
}

impl Operator {
    /// Reads the text of a configuration file.
    pub fn parse(text: &str) -> Result<Operator, ConfigError> {
        let operator: Operator = toml::from_str(text).map_err(|error| {
            invalid("configuration file", error.to_string().trim_end().replace('\n', " "))
        })?;
        operator.check()?;
        Ok(operator)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let machine = &self.machine;
        for (name, value) in [("machine.vcpus", machine.vcpus), ("machine.max_vcpus", machine.max_vcpus)] {
            if !(1..=MOST_VCPUS).contains(&value) {
                return Err(invalid(name, format!("{value} is not between 1 and {MOST_VCPUS}")));
            }
        }
        if machine.vcpus > machine.max_vcpus {
            return Err(invalid("machine.vcpus", format!("{} is above machine.max_vcpus", machine.vcpus)));
        }
        for (name, value) in
            [("machine.memory_mib", machine.memory_mib), ("machine.max_memory_mib", machine.max_memory_mib)]
        {
            if value < LEAST_MEMORY_MIB && !(value == 0 && name == "machine.max_memory_mib") {
                return Err(invalid(
                    name,
                    format!("{value} is too little for a machine to boot ({LEAST_MEMORY_MIB} at least)"),
                ));
            }
        }
        if machine.boot_timeout_ms == 0 {
            return Err(invalid("machine.boot_timeout_ms", "must be above 0"));
        }
        for (name, path) in [
            ("machine.kernel", machine.kernel.as_deref()),
            ("machine.initrd", machine.initrd.as_deref()),
            ("machine.template_directory", Some(machine.template_directory.as_path())),
        ] {
            if path.is_some_and(Path::is_relative) {
                return Err(invalid(name, "must be an absolute path"));
            }
        }
        if !machine.kernel_command_line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(invalid("machine.kernel_command_line", "must be printable ASCII"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Operator::parse("").unwrap(), Operator::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for text in ["[machine]\nmemory_mb = 5", "[machin]\n", "kernel = '/k'"] {
            let error = Operator::parse(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_errors_that_name_the_key() {
        let table = [
            ("[machine]\nvcpus = 0", "machine.vcpus"),
            ("[machine]\nmax_vcpus = 33", "machine.max_vcpus"),
            ("[machine]\nvcpus = 4\nmax_vcpus = 2", "machine.vcpus"),
            ("[machine]\nmemory_mib = 63", "machine.memory_mib"),
            ("[machine]\nmax_memory_mib = 10", "machine.max_memory_mib"),
            ("[machine]\nboot_timeout_ms = 0", "machine.boot_timeout_ms"),
            ("[machine]\nkernel = 'vmlinux'", "machine.kernel"),
            ("[machine]\nkernel_command_line = \"a\\nb\"", "machine.kernel_command_line"),
        ];
        for (text, key) in table {
            let error = Operator::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(key), "{text}: {error}");
        }
    }
}
