//! The guest's kernel and initrd, before they are loaded: which file they come from, and where in it they lie.
//!
//! The operator's path wins; otherwise they are two sections of our own executable, put there page-aligned when it was
//! built, so that a start maps them instead of reading them. There is no search along well-known paths: a machine must
//! not boot what somebody happened to leave somewhere.

use super::elf::{self, ElfError};
use super::order::MachineConfig;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a guest boots from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// An uncompressed kernel (ELF).
    pub kernel: Part,
    /// An initial RAM file system (newc cpio) with the agent as /init.
    pub initrd: Part,
}

/// A stretch of an open file.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<File>,
    offset: u64,
    length: u64,
    name: String,
}

impl Parts {
    /// Opens what `config` names, and finds the rest in our own executable.
    pub fn find(config: &MachineConfig) -> Result<Parts, PartsError> {
        let mut own = None;
        let mut find = |path: &Option<PathBuf>, section: &'static str, what: &'static str| match path {
            Some(path) => Part::open(path, what),
            None => {
                let own = match &mut own {
                    Some(own) => own,
                    none => none.insert(Executable::open()?),
                };
                own.part(section, what)
            }
        };
        let kernel = find(&config.kernel, KERNEL_SECTION, "guest kernel")?;
        let initrd = find(&config.initrd, INITRD_SECTION, "initrd")?;
        Ok(Parts { kernel, initrd })
    }
}

impl Part {
    /// A whole file. `what` it is, for errors.
    pub fn open(path: &Path, what: &'static str) -> Result<Part, PartsError> {
        let failed = |source| PartsError::Open { what, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(PartsError::NotAFile { what, path: path.to_owned() });
        }
        if metadata.len() == 0 {
            return Err(PartsError::Empty { what, path: path.to_owned() });
        }
        Ok(Part { file: Arc::new(file), offset: 0, length: metadata.len(), name: path.display().to_string() })
    }

    /// The file that holds it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What to call it in an error.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads exactly `buffer.len()` bytes at `at`, which counts from the part's beginning.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.length);
        let from = self.offset.checked_add(at);
        match (end, from) {
            (Some(_), Some(from)) => self.file.read_exact_at(buffer, from),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Our own executable, with its table of sections.
struct Executable {
    file: Arc<File>,
    sections: Vec<elf::Section>,
    names: Vec<u8>,
}

impl Executable {
    fn open() -> Result<Executable, PartsError> {
        let file = File::open("/proc/self/exe").map_err(PartsError::Own)?;
        Self::read(file)
    }

    fn read(file: File) -> Result<Executable, PartsError> {
        let length = file.metadata().map_err(PartsError::Own)?.len();
        let bytes_at = |offset: u64, size: u64| {
            // Bounded: by the table's greatest count, and for the names below.
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            file.read_exact_at(&mut bytes, offset).map_err(PartsError::Own).map(|()| bytes)
        };
        let header = bytes_at(0, (elf::HEADER_SIZE as u64).min(length))?;
        let header = elf::header(&header, length)?;
        let table = header.sections.range();
        let sections = elf::sections(&bytes_at(table.start, table.end.saturating_sub(table.start))?, length)?;
        let names = match sections.get(usize::from(header.section_names)) {
            Some(names) if names.size <= MAX_NAMES => bytes_at(names.offset, names.size)?,
            _ => Vec::new(),
        };
        Ok(Executable { file: Arc::new(file), sections, names })
    }

    fn part(&self, section: &'static str, what: &'static str) -> Result<Part, PartsError> {
        match elf::find_section(&self.sections, &self.names, section) {
            Some(found) if found.size > 0 => Ok(Part {
                file: self.file.clone(),
                offset: found.offset,
                length: found.size,
                name: format!("section {section} of this program"),
            }),
            _ => Err(PartsError::Missing { what, section }),
        }
    }
}

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A configured file cannot be opened.
    #[error("cannot open the {what} {}", path.display())]
    Open {
        /// Kernel or initrd.
        what: &'static str,
        /// The configured path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A configured path is a directory, a device, ...
    #[error("the {what} {} is not a regular file", path.display())]
    NotAFile {
        /// Kernel or initrd.
        what: &'static str,
        /// The configured path.
        path: PathBuf,
    },
    /// A configured file is empty.
    #[error("the {what} {} is empty", path.display())]
    Empty {
        /// Kernel or initrd.
        what: &'static str,
        /// The configured path.
        path: PathBuf,
    },
    /// Nothing configured, nothing embedded.
    #[error(
        "no {what}: this husk was built without one (no section {section}) and the configuration names none"
    )]
    Missing {
        /// Kernel or initrd.
        what: &'static str,
        /// Where it would have been.
        section: &'static str,
    },
    /// Our own executable cannot be read.
    #[error("cannot read this program's own file")]
    Own(#[source] io::Error),
    /// Our own executable is damaged.
    #[error("this program's own file is damaged")]
    OwnDamaged(#[from] ElfError),
}

/// Where the build puts the kernel.
pub const KERNEL_SECTION: &str = ".husk.kernel";
/// Where the build puts the initrd.
pub const INITRD_SECTION: &str = ".husk.initrd";
const MAX_NAMES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn config(kernel: &str, initrd: &str) -> MachineConfig {
        MachineConfig {
            vcpus: 1,
            memory_mib: 128,
            most_memory_mib: 128,
            headroom_mib: 0,
            kernel: Some(kernel.into()),
            initrd: Some(initrd.into()),
            command_line: String::new(),
            boot_timeout_ms: 1000,
            templates: None,
            system_calls: Default::default(),
        }
    }

    #[test]
    fn errors_name_the_part_and_the_path() {
        let error = Parts::find(&config("/nonexistent/vmlinux", "/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open the guest kernel /nonexistent/vmlinux");
        let error = Parts::find(&config("/proc/self/exe", "/")).unwrap_err();
        assert_eq!(error.to_string(), "the initrd / is not a regular file");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = Parts::find(&config("/proc/self/exe", empty.path().to_str().unwrap())).unwrap_err();
        assert!(error.to_string().ends_with("is empty"), "{error}");
    }

    #[test]
    fn a_program_without_a_kernel_inside_says_so() {
        let config = MachineConfig { kernel: None, ..config("", "/proc/self/exe") };
        let error = Parts::find(&config).unwrap_err();
        assert!(matches!(error, PartsError::Missing { what: "guest kernel", .. }), "{error}");
    }

    #[test]
    fn an_embedded_part_is_read_from_its_section() {
        let mut file = tempfile::tempfile().unwrap();
        let sections: &[(&str, &[u8])] = &[(KERNEL_SECTION, b"a kernel"), (INITRD_SECTION, b"an initrd")];
        file.write_all(&elf::testing::file(elf::TYPE_SHARED, 0, &[], sections)).unwrap();
        let own = Executable::read(file).unwrap();
        let part = own.part(INITRD_SECTION, "initrd").unwrap();
        let mut bytes = [0; 6];
        part.read_exact_at(&mut bytes, 3).unwrap();
        assert_eq!(&bytes, b"initrd");
        assert!(part.read_exact_at(&mut bytes, 4).is_err(), "beyond the part, though inside the file");
        assert!(part.read_exact_at(&mut bytes, u64::MAX).is_err());
    }
}
