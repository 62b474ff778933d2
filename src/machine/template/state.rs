//! What a template is besides its memory, in a file: checked before it is believed.

use super::Touched;
use super::stretches::Stretch;
use crate::device::transport::Registers;
use crate::host::file;
use crate::machine::arch::current::saved::SavedVcpu;
use crate::machine::kvm::SavedChips;
use crate::machine::order::MachineConfig;
use crate::machine::parts::{Part, Parts};
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A template's state.
#[derive(Serialize, Deserialize)]
pub struct State {
    pub(super) made_from: MadeFrom,
    pub(super) memory: MemoryFile,
    /// Of the devices, by slot.
    pub(super) registers: Vec<Registers>,
    pub(super) chips: SavedChips,
    pub(super) vcpus: Vec<SavedVcpu>,
    /// What a start changes.
    pub(super) touched: Touched,
}

/// What a template was made from. Only a machine that would be made from the same can start from it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MadeFrom {
    husk: String,
    kernel: Origin,
    initrd: Origin,
    command_line: String,
    vcpus: u8,
    memory_mib: u32,
}

/// A part of a file, as it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    file: Identity,
    offset: u64,
    length: u64,
}

/// A file, as it was: what is written to it later, or in its place, has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The file with the memory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MemoryFile {
    pub name: String,
    pub identity: Identity,
    pub stretches: Vec<Stretch>,
}

impl MadeFrom {
    pub fn of(config: &MachineConfig, parts: &Parts) -> io::Result<MadeFrom> {
        Ok(MadeFrom {
            husk: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: Origin::of(&parts.kernel)?,
            initrd: Origin::of(&parts.initrd)?,
            command_line: config.command_line.clone(),
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
        })
    }

    /// Whether what is there `now` is the same; the first thing that is not.
    pub fn fits(&self, now: &MadeFrom) -> Result<(), Unfit> {
        let same = [
            ("husk", self.husk == now.husk),
            ("guest kernel", self.kernel == now.kernel),
            ("agent", self.initrd == now.initrd),
            ("kernel command line", self.command_line == now.command_line),
            ("number of vcpus", self.vcpus == now.vcpus),
            ("size of memory", self.memory_mib == now.memory_mib),
        ];
        same.iter().find(|(_, same)| !same).map_or(Ok(()), |(what, _)| Err(Unfit::Other(what)))
    }
}

impl MadeFrom {
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib
    }
}

impl Origin {
    fn of(part: &Part) -> io::Result<Origin> {
        let file = Identity::of(&part.file().metadata()?);
        Ok(Origin { file, offset: part.offset(), length: part.length() })
    }
}

impl Identity {
    pub fn of(metadata: &Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl MemoryFile {
    /// Opens it, if it is what it was.
    pub fn open(&self, directory: &Path) -> Result<File, Unfit> {
        // It comes from a file of root's, but a name with a slash would lead elsewhere by mistake.
        let name = Path::new(&self.name).file_name().ok_or(Unfit::Damaged("its memory's name"))?;
        let memory = File::open(directory.join(name)).map_err(Unfit::Unreadable)?;
        let metadata = memory.metadata().map_err(Unfit::Unreadable)?;
        if Identity::of(&metadata) != self.identity {
            return Err(Unfit::Damaged("its memory"));
        }
        private(&metadata)?;
        Ok(memory)
    }
}

impl State {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<State, Unfit> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Unfit::Missing,
            _ => Unfit::Unreadable(error),
        };
        private(&std::fs::metadata(path).map_err(unreadable)?)?;
        let bytes = file::read_bounded(path, LONGEST).map_err(unreadable)?;
        State::from_bytes(&bytes)
    }

    /// Writes the file at `path`: whole, or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = self.to_bytes().map_err(io::Error::other)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        file::replace(path.parent().unwrap_or(path), &name, &bytes)
    }

    /// As bytes that know their version and whether they are whole.
    fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = MARK.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        let content = postcard::to_stdvec(self)?;
        bytes.extend(crc32fast::hash(&content).to_le_bytes());
        bytes.extend(content);
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<State, Unfit> {
        let (mark, rest) = bytes.split_first_chunk::<8>().ok_or(Unfit::Damaged("its state"))?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(Unfit::Damaged("its state"))?;
        let (sum, content) = rest.split_first_chunk::<4>().ok_or(Unfit::Damaged("its state"))?;
        if mark != MARK {
            return Err(Unfit::Damaged("its state"));
        }
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Unfit::Other("format"));
        }
        if u32::from_le_bytes(*sum) != crc32fast::hash(content) {
            return Err(Unfit::Damaged("its state"));
        }
        postcard::from_bytes(content).map_err(|_| Unfit::Damaged("its state"))
    }
}

/// Whoever can write to it could give a guest of another's anything.
fn private(metadata: &Metadata) -> Result<(), Unfit> {
    let others_write = metadata.mode() & 0o022 != 0;
    if metadata.uid() != 0 || others_write || !metadata.is_file() { Err(Unfit::NotPrivate) } else { Ok(()) }
}

/// Why a start cannot be made from a template.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is none.
    #[error("there is no template for a machine of that size")]
    Missing,
    /// It was made for something else.
    #[error("it was made from another {0}")]
    Other(&'static str),
    /// It is not what was written.
    #[error("{0} was cut short or altered")]
    Damaged(&'static str),
    /// Somebody else may have written to it.
    #[error("others than root may write to it")]
    NotPrivate,
    /// The host.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
}

const MARK: &[u8; 8] = b"husktmpl";
/// Of the format, and of all that is in it: vcpus, registers, the order of devices.
const VERSION: u32 = 1;
/// A vcpu has some 10 KiB, and a memory a few hundred stretches.
const LONGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    fn config() -> MachineConfig {
        MachineConfig {
            vcpus: 1,
            memory_mib: 512,
            most_memory_mib: 512,
            headroom_mib: 0,
            kernel: None,
            initrd: None,
            command_line: String::new(),
            boot_timeout_ms: 1,
            templates: None,
            system_calls: Default::default(),
        }
    }

    fn parts(directory: &Path) -> Parts {
        let part = |name: &str| {
            let path: PathBuf = directory.join(name);
            File::options().append(true).create(true).open(&path).unwrap().write_all(b"x").unwrap();
            Part::open(&path, "part").unwrap()
        };
        Parts { kernel: part("kernel"), initrd: part("initrd") }
    }

    #[test]
    fn only_what_is_made_from_the_same_fits() {
        let directory = tempfile::tempdir().unwrap();
        let before = MadeFrom::of(&config(), &parts(directory.path())).unwrap();
        let refused = |config: MachineConfig, parts: &Parts| {
            before.fits(&MadeFrom::of(&config, parts).unwrap()).unwrap_err().to_string()
        };
        let same = Parts {
            kernel: Part::open(&directory.path().join("kernel"), "").unwrap(),
            initrd: Part::open(&directory.path().join("initrd"), "").unwrap(),
        };
        before.fits(&MadeFrom::of(&config(), &same).unwrap()).unwrap();
        assert_eq!(
            refused(MachineConfig { vcpus: 2, ..config() }, &same),
            "it was made from another number of vcpus"
        );
        assert!(refused(MachineConfig { memory_mib: 1, ..config() }, &same).ends_with("size of memory"));
        assert!(
            refused(MachineConfig { command_line: "x".into(), ..config() }, &same).ends_with("command line")
        );
        let swapped = Parts { kernel: same.kernel.clone(), initrd: same.kernel.clone() };
        assert!(refused(config(), &swapped).ends_with("another agent"));
        // Written to since.
        assert!(refused(config(), &parts(directory.path())).ends_with("guest kernel"));
    }

    #[test]
    fn a_memory_file_that_was_touched_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        std::fs::write(&path, [1; 8192]).unwrap();
        let identity = Identity::of(&std::fs::metadata(&path).unwrap());
        let file = MemoryFile { name: "memory".into(), identity, stretches: Vec::new() };
        let opened = file.open(directory.path());
        if nix::unistd::geteuid().is_root() {
            opened.unwrap();
        } else {
            assert!(matches!(opened, Err(Unfit::NotPrivate)));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        File::options().write(true).open(&path).unwrap().write_all(b"y").unwrap();
        assert!(matches!(file.open(directory.path()), Err(Unfit::Damaged(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.open(directory.path()), Err(Unfit::Unreadable(_))));
    }

    #[test]
    fn a_state_that_is_not_whole_is_refused_wherever_it_was_cut_or_altered() {
        let mut bytes = MARK.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        let content = [7; 100];
        bytes.extend(crc32fast::hash(&content).to_le_bytes());
        bytes.extend(content);
        // Whole, and still no state.
        assert!(matches!(State::from_bytes(&bytes), Err(Unfit::Damaged(_))));
        for length in 0..bytes.len() {
            assert!(State::from_bytes(bytes.get(..length).unwrap()).is_err(), "cut to {length}");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let expected_format = (8..12).contains(&at);
            match State::from_bytes(&altered) {
                Err(Unfit::Other("format")) => assert!(expected_format, "{at}"),
                Err(Unfit::Damaged(_)) => assert!(!expected_format, "{at}"),
                _ => panic!("altered at {at} and believed"),
            }
        }
    }
}
