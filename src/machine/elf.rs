//! Reads the ELF headers that we need: the segments of a guest kernel, and the sections of our own executable that
//! hold the embedded kernel and initrd.
//!
//! Pure functions over bytes. The file is not trusted: an operator may have named anything at all, so every offset is
//! checked against the file's length, every count is bounded, and nothing is trusted to lie behind the headers.
//! Only 64-bit little-endian ELF is read. What the segments mean for guest memory is decided in `boot::kernel`.

use std::ops::Range;

/// The file header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `e_type`: [`TYPE_EXECUTABLE`] or [`TYPE_SHARED`].
    pub kind: u16,
    /// `e_machine`.
    pub machine: u16,
    /// Where execution begins.
    pub entry: u64,
    /// Where the program headers lie in the file.
    pub segments: Table,
    /// Where the section headers lie in the file; an empty table if the file has none.
    pub sections: Table,
    /// Which section holds the sections' names.
    pub section_names: u16,
}

/// A table of headers in the file. Lies inside the file; has a bounded number of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    offset: u64,
    count: u16,
    entry_size: u16,
}

impl Table {
    /// The bytes of the file that hold it.
    pub fn range(&self) -> Range<u64> {
        let length = u64::from(self.count).saturating_mul(u64::from(self.entry_size));
        self.offset..self.offset.saturating_add(length)
    }
}

/// A loadable part of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where its bytes are in the file.
    pub offset: u64,
    /// How many of them there are.
    pub file_size: u64,
    /// Its physical address.
    pub physical: u64,
    /// Its size in memory; what exceeds `file_size` is zero.
    pub memory_size: u64,
    /// Whether it holds code.
    pub executable: bool,
}

/// A named stretch of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Offset of its name in the section of names.
    name: u32,
    kind: u32,
    /// Where it is in the file.
    pub offset: u64,
    /// Its size in the file.
    pub size: u64,
}

/// What is wrong with a file that should be ELF.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Too short, or other magic.
    #[error("not an ELF file")]
    NotElf,
    /// 32-bit or big-endian.
    #[error("not a 64-bit little-endian ELF file")]
    WrongClass,
    /// A table or its entries are not as the format says.
    #[error("the {0} are damaged")]
    Table(&'static str),
    /// Something lies outside the file.
    #[error(
        "{what} at offset {offset:#x} with size {size:#x} does not lie inside the file of {file:#x} bytes"
    )]
    OutsideFile {
        /// What.
        what: &'static str,
        /// Its claimed place.
        offset: u64,
        /// Its claimed size.
        size: u64,
        /// The file's length.
        file: u64,
    },
}

/// Reads the file header from the first [`HEADER_SIZE`] bytes of a file of `file` bytes.
pub fn header(bytes: &[u8], file: u64) -> Result<Header, ElfError> {
    if bytes.get(..4) != Some(MAGIC) {
        return Err(ElfError::NotElf);
    }
    if bytes.get(4..6) != Some(&[CLASS_64, DATA_LITTLE]) {
        return Err(ElfError::WrongClass);
    }
    let word = |at| read_u16(bytes, at).ok_or(ElfError::NotElf);
    let long = |at| read_u64(bytes, at).ok_or(ElfError::NotElf);
    let segments = Table { offset: long(32)?, count: word(56)?, entry_size: word(54)? };
    let sections = Table { offset: long(40)?, count: word(60)?, entry_size: word(58)? };
    check_table("program headers", &segments, SEGMENT_SIZE, MAX_SEGMENTS, file)?;
    check_table("section headers", &sections, SECTION_SIZE, MAX_SECTIONS, file)?;
    Ok(Header {
        kind: word(16)?,
        machine: word(18)?,
        entry: long(24)?,
        segments,
        sections,
        section_names: word(62)?,
    })
}

/// Reads the loadable segments from the bytes of the program headers' table.
pub fn segments(table: &[u8], file: u64) -> Result<Vec<Segment>, ElfError> {
    let mut found = Vec::new();
    for entry in table.chunks_exact(SEGMENT_SIZE) {
        let damaged = || ElfError::Table("program headers");
        let long = |at| read_u64(entry, at).ok_or_else(damaged);
        let word = |at| read_u32(entry, at).ok_or_else(damaged);
        if word(0)? != SEGMENT_LOAD {
            continue;
        }
        let segment = Segment {
            offset: long(8)?,
            physical: long(24)?,
            file_size: long(32)?,
            memory_size: long(40)?,
            executable: word(4)? & SEGMENT_EXECUTABLE != 0,
        };
        if segment.file_size > segment.memory_size {
            return Err(damaged());
        }
        check_inside("a segment", segment.offset, segment.file_size, file)?;
        found.push(segment);
    }
    Ok(found)
}

/// Reads all sections from the bytes of the section headers' table.
pub fn sections(table: &[u8], file: u64) -> Result<Vec<Section>, ElfError> {
    let mut found = Vec::new();
    for entry in table.chunks_exact(SECTION_SIZE) {
        let damaged = || ElfError::Table("section headers");
        let long = |at| read_u64(entry, at).ok_or_else(damaged);
        let word = |at| read_u32(entry, at).ok_or_else(damaged);
        let section = Section { name: word(0)?, kind: word(4)?, offset: long(24)?, size: long(32)? };
        if !matches!(section.kind, SECTION_NULL | SECTION_NO_BITS) {
            check_inside("a section", section.offset, section.size, file)?;
        }
        found.push(section);
    }
    Ok(found)
}

/// The section called `name`, if there is one with bytes in the file. `names` are the bytes of the section of names.
pub fn find_section<'s>(sections: &'s [Section], names: &[u8], name: &str) -> Option<&'s Section> {
    sections.iter().filter(|section| !matches!(section.kind, SECTION_NULL | SECTION_NO_BITS)).find(
        |section| {
            let at = usize::try_from(section.name).unwrap_or(usize::MAX);
            let rest = names.get(at..).unwrap_or(&[]);
            rest.strip_prefix(name.as_bytes()).is_some_and(|end| end.first() == Some(&0))
        },
    )
}

fn check_table(what: &'static str, table: &Table, size: usize, most: u16, file: u64) -> Result<(), ElfError> {
    if table.count == 0 {
        return Ok(());
    }
    if usize::from(table.entry_size) != size || table.count > most {
        return Err(ElfError::Table(what));
    }
    let range = table.range();
    check_inside(what, table.offset, range.end.saturating_sub(range.start), file)
}

/// An offset near the type's end must not wrap round into the file.
fn check_inside(what: &'static str, offset: u64, size: u64, file: u64) -> Result<(), ElfError> {
    match offset.checked_add(size) {
        Some(end) if end <= file => Ok(()),
        _ => Err(ElfError::OutsideFile { what, offset, size, file }),
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|raw| u16::from_le_bytes(*raw))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|raw| u32::from_le_bytes(*raw))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|raw| u64::from_le_bytes(*raw))
}

// System V ABI, "Object files", with the 64-bit layout of the ELF-64 object file format.
/// Bytes that [`header`] wants.
pub const HEADER_SIZE: usize = 64;
/// `ET_EXEC`.
pub const TYPE_EXECUTABLE: u16 = 2;
/// `ET_DYN`.
pub const TYPE_SHARED: u16 = 3;
/// `EM_X86_64`.
pub const MACHINE_X86_64: u16 = 62;
const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const DATA_LITTLE: u8 = 1;
const SEGMENT_SIZE: usize = 56;
const SECTION_SIZE: usize = 64;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_EXECUTABLE: u32 = 1;
const SECTION_NULL: u32 = 0;
const SECTION_NO_BITS: u32 = 8;
// Ours: a kernel has about five segments, an unstripped program about fifty sections.
const MAX_SEGMENTS: u16 = 64;
const MAX_SECTIONS: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(segments: &[Segment]) -> Vec<u8> {
        testing::file(TYPE_EXECUTABLE, 0x100_0000, segments, &[])
    }

    fn segment() -> Segment {
        Segment { offset: 0x1000, file_size: 16, physical: 0x100_0000, memory_size: 32, executable: true }
    }

    #[test]
    fn segments_of_a_well_formed_file_are_read() {
        let mut bytes = file(&[segment()]);
        bytes.resize(0x1010, 0);
        let length = bytes.len() as u64;
        let header = header(&bytes, length).unwrap();
        let table = header.segments.range();
        let table = &bytes[table.start as usize..table.end as usize];
        assert_eq!(segments(table, length).unwrap(), [segment()]);
        assert_eq!(header.entry, 0x100_0000);
    }

    #[test]
    fn a_segment_beyond_the_end_of_the_file_is_refused() {
        for (offset, size) in [(0x1000, 17), (u64::MAX, 1), (u64::MAX - 8, 16), (0x2000, 1)] {
            let bytes = file(&[Segment { offset, file_size: size, memory_size: size, ..segment() }]);
            let header = header(&bytes, 0x1010).unwrap();
            let table = header.segments.range();
            let table = &bytes[table.start as usize..table.end as usize];
            let error = segments(table, 0x1010).unwrap_err();
            assert!(matches!(error, ElfError::OutsideFile { .. }), "{offset:#x} {size:#x}: {error}");
        }
    }

    #[test]
    fn a_segment_with_more_bytes_in_the_file_than_in_memory_is_refused() {
        let bytes = file(&[Segment { file_size: 33, ..segment() }]);
        let table = &bytes[HEADER_SIZE..HEADER_SIZE + SEGMENT_SIZE];
        assert_eq!(segments(table, 0x10000), Err(ElfError::Table("program headers")));
    }

    #[test]
    fn a_table_beyond_the_end_of_the_file_is_refused() {
        let mut bytes = file(&[segment()]);
        bytes[32..40].copy_from_slice(&(u64::MAX - 10).to_le_bytes());
        assert!(matches!(header(&bytes, 0x1010), Err(ElfError::OutsideFile { .. })));
    }

    #[test]
    fn what_is_not_elf_is_refused() {
        assert_eq!(header(b"", 0), Err(ElfError::NotElf));
        assert_eq!(header(b"\x7fELF", 4), Err(ElfError::WrongClass));
        assert_eq!(header(&[0x4d; 64], 64), Err(ElfError::NotElf));
        assert_eq!(header(b"\x7fELF\x01\x01\x01", 7), Err(ElfError::WrongClass));
        assert_eq!(header(b"\x7fELF\x02\x01\x01", 7), Err(ElfError::NotElf));
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let bytes = testing::file(TYPE_SHARED, 0, &[], &[(".husk.kernelx", b"no"), (".husk.kernel", b"yes")]);
        let length = bytes.len() as u64;
        let header = header(&bytes, length).unwrap();
        let table = header.sections.range();
        let sections = sections(&bytes[table.start as usize..table.end as usize], length).unwrap();
        let names = &sections[usize::from(header.section_names)];
        let names = &bytes[names.offset as usize..(names.offset + names.size) as usize];
        let found = find_section(&sections, names, ".husk.kernel").unwrap();
        assert_eq!(&bytes[found.offset as usize..(found.offset + found.size) as usize], b"yes");
        assert_eq!(find_section(&sections, names, ".husk.initrd"), None);
        assert_eq!(
            find_section(&sections, &names[..names.len() - 1], ".husk.kernel"),
            None,
            "name cut short"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..512), file in any::<u64>(), valid: bool) {
            if valid && bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let _ = header(&bytes, file);
            if let Ok(found) = segments(&bytes, file) {
                for segment in found {
                    prop_assert!(segment.offset.checked_add(segment.file_size).unwrap() <= file);
                }
            }
            if let Ok(found) = sections(&bytes, file) {
                let _ = find_section(&found, &bytes, ".husk.kernel");
            }
        }
    }
}

/// Writes ELF files for tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A file with these program headers and sections; the segments' bytes are the caller's to add.
    pub fn file(kind: u16, entry: u64, segments: &[Segment], sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&MACHINE_X86_64.to_le_bytes());
        bytes[24..32].copy_from_slice(&entry.to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEADER_SIZE as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&(SEGMENT_SIZE as u16).to_le_bytes());
        bytes[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for segment in segments {
            let mut entry = [0; SEGMENT_SIZE];
            entry[..4].copy_from_slice(&SEGMENT_LOAD.to_le_bytes());
            entry[4..8].copy_from_slice(&u32::from(segment.executable).to_le_bytes());
            entry[8..16].copy_from_slice(&segment.offset.to_le_bytes());
            entry[24..32].copy_from_slice(&segment.physical.to_le_bytes());
            entry[32..40].copy_from_slice(&segment.file_size.to_le_bytes());
            entry[40..48].copy_from_slice(&segment.memory_size.to_le_bytes());
            bytes.extend(entry);
        }
        if !sections.is_empty() {
            add_sections(&mut bytes, sections);
        }
        bytes
    }

    fn add_sections(bytes: &mut Vec<u8>, sections: &[(&str, &[u8])]) {
        let mut names = vec![0];
        let mut headers = vec![[0; SECTION_SIZE]];
        let mut add = |bytes: &mut Vec<u8>, name: u32, content: &[u8]| {
            let mut entry = [0; SECTION_SIZE];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[4..8].copy_from_slice(&1u32.to_le_bytes());
            entry[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            headers.push(entry);
            bytes.extend(content);
        };
        for (name, content) in sections {
            let at = names.len() as u32;
            names.extend(name.as_bytes());
            names.push(0);
            add(bytes, at, content);
        }
        add(bytes, 0, &names);
        let at = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&at.to_le_bytes());
        bytes[58..60].copy_from_slice(&(SECTION_SIZE as u16).to_le_bytes());
        bytes[60..62].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        bytes[62..64].copy_from_slice(&(headers.len() as u16 - 1).to_le_bytes());
        bytes.extend(headers.concat());
    }
}
