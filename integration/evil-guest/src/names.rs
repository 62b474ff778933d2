//! Names that no file server may take from a guest, whatever is done with them.

/// A name, and its last byte once more so many times: a guest without an allocator has no long names lying about.
#[derive(Debug, Clone, Copy)]
pub struct Hostile {
    /// As it begins.
    pub begin: &'static [u8],
    /// What follows, and how often.
    pub again: (&'static [u8], usize),
    /// What comes last.
    pub end: &'static [u8],
}

impl Hostile {
    /// Its bytes, without the NUL that ends it for others.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        let (again, times) = self.again;
        let again = core::iter::repeat_n(again, times).flatten();
        self.begin.iter().chain(again).chain(self.end).copied()
    }
}

const fn plain(name: &'static [u8]) -> Hostile {
    Hostile { begin: name, again: (b"", 0), end: b"" }
}

const fn long(begin: &'static [u8], again: &'static [u8], times: usize, end: &'static [u8]) -> Hostile {
    Hostile { begin, again: (again, times), end }
}

/// Each is refused by every operation that takes a name. What comes behind a NUL is bytes left over.
pub const HOSTILE: &[Hostile] = &[
    plain(b""),
    plain(b"."),
    plain(b".."),
    plain(b"/"),
    plain(b"//"),
    plain(b"./"),
    plain(b"../"),
    plain(b"/.."),
    plain(b"/."),
    plain(b"../.."),
    plain(b"../../.."),
    plain(b"../canary"),
    plain(b"../canary/"),
    plain(b"./canary"),
    plain(b"../outside/canary"),
    plain(b"a/b"),
    plain(b"a/../canary"),
    plain(b"a/../../canary"),
    plain(b"etc/"),
    plain(b"etc/."),
    plain(b"etc/.."),
    plain(b"etc/../.."),
    plain(b"etc/passwd"),
    plain(b"/canary"),
    plain(b"/etc/passwd"),
    plain(b"../../../etc/passwd"),
    plain(b"../../../../../../../../etc/passwd"),
    plain(b"/proc/self/exe"),
    plain(b"/proc/self/fd/0"),
    plain(b"/proc/1/root"),
    plain(b"//etc//passwd"),
    plain(b"./."),
    plain(b"./.."),
    plain(b"..//"),
    plain(b"x/"),
    plain(b"/x"),
    plain(b"\0/"),
    plain(b"a\0b"),
    plain(b"..\0"),
    plain(b".\0x"),
    plain(b"etc\0/../canary"),
    plain(b"\n/"),
    plain(b"\x1b[2J/"),
    plain(b"%2e%2e/%2e%2e"),
    plain(b"\xff/\xfe"),
    plain(b"\xc0\xae\xc0\xae/\xc0\xaf"),
    long(b"", b"a", 256, b""),
    long(b"", b"a", 1023, b""),
    long(b"", b"/", 255, b""),
    long(b"", b"b", 255, b"/"),
    long(b"", b"../", 300, b"etc/passwd"),
];

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn there_are_forty_and_each_is_one_that_leads_somewhere_else_or_nowhere() {
        let names: Vec<Vec<u8>> = HOSTILE.iter().map(|name| name.bytes().collect()).collect();
        assert!(names.len() >= 40);
        for name in &names {
            let known = matches!(name.as_slice(), b"" | b"." | b"..");
            let odd = name.contains(&b'/') || name.contains(&0) || name.len() > 255;
            assert!(known || odd, "{:?}", name.escape_ascii());
        }
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len(), "one is there twice");
    }
}
