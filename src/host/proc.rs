//! What /proc tells about a process and about the host.

use std::path::Path;

/// The parts of /proc/PID/stat that tell one process from another (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `R`, `S`, `Z`, ...
    pub state: char,
    /// Field 22: when it started, in clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Reads it; `None` when there is no such process (or /proc cannot be read).
    pub fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether the process has ended and only waits for its parent.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// The name (field 2) may hold anything, parentheses and spaces too; what follows the last `)` is well-formed.
    fn parse(line: &str) -> Option<Stat> {
        let (_, after_name) = line.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Stat { state, start_time })
    }
}

/// Whether two paths lead to the same file (for namespaces: /proc/PID/ns/KIND).
pub fn same_file(one: &Path, other: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (one, other) = (std::fs::metadata(one)?, std::fs::metadata(other)?);
    Ok(one.dev() == other.dev() && one.ino() == other.ino())
}

/// The host's memory in MiB (MemTotal), or `None` when /proc/meminfo cannot be read.
pub fn memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// How many processors this process may use.
pub fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_mislead() {
        let line = "42 (a) Z (b c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 0 0";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', start_time: 777 }));
    }

    #[test]
    fn a_line_cut_short_is_no_stat() {
        let line = "42 (a) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0";
        assert_eq!(Stat::parse(line), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn we_can_be_read_and_have_not_ended() {
        let stat = Stat::read(std::process::id() as i32).unwrap();
        assert!(!stat.has_ended());
        assert!(memory_mib().unwrap() > 0);
        assert!(processors() > 0);
    }
}
