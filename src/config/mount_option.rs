//! Mount options: the words that runc knows, and what each means.

use crate::machine::order::AccessTimes;
use husk_protocol::MountAttributes;

/// What a list of options amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `bind` or `rbind` was among them.
    pub bind: bool,
    /// `rbind` was.
    pub recursive: bool,
    /// `remount` was.
    pub remount: bool,
    /// `tmpcopyup` was.
    pub copy_up: bool,
    /// `idmap` or `ridmap` was.
    pub id_map: bool,
    /// Flags and recursive attributes.
    pub attributes: MountAttributes,
    /// Propagation, in the order given.
    pub propagation: Vec<u64>,
    /// Whatever is not an option of mount(8): the file system's own.
    pub data: Vec<String>,
}

impl Options {
    /// Reads a list.
    pub fn parse(options: &[String]) -> Options {
        let mut found = Options::default();
        for option in options {
            found.take(option);
        }
        found
    }

    /// Whether nothing may be changed through the mount.
    pub fn read_only(&self) -> bool {
        let MountAttributes { set, recursive_set, recursive_clear, .. } = self.attributes;
        // The recursive ones are applied last.
        recursive_set & libc::MOUNT_ATTR_RDONLY != 0
            || set & libc::MS_RDONLY != 0 && recursive_clear & libc::MOUNT_ATTR_RDONLY == 0
    }

    /// A bind mount has the flags (`MS_*`) of the mount that it shows, unless it asks for any itself, as with runc. How
    /// that keeps access times stays unless it asks for another way.
    pub fn inherit(&mut self, flags: u64) {
        let MountAttributes { set, clear, .. } = self.attributes;
        let flags = flags & !clear;
        if set == 0 {
            self.attributes.set = flags;
        } else if (set | clear) & ACCESS_TIMES == 0 {
            self.attributes.set |= flags & ACCESS_TIMES;
        }
    }

    /// What the mount's own options say of access times.
    pub fn access_times(&self) -> AccessTimes {
        let MountAttributes { set, clear, .. } = self.attributes;
        let mut change = AccessTimes::default();
        if (set | clear) & (libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME) != 0 {
            change.clear = libc::MOUNT_ATTR__ATIME;
            change.set = match set {
                _ if set & libc::MS_NOATIME != 0 => libc::MOUNT_ATTR_NOATIME,
                _ if set & libc::MS_STRICTATIME != 0 => libc::MOUNT_ATTR_STRICTATIME,
                _ => libc::MOUNT_ATTR_RELATIME,
            };
        }
        if set & libc::MS_NODIRATIME != 0 {
            change.set |= libc::MOUNT_ATTR_NODIRATIME;
        } else if clear & libc::MS_NODIRATIME != 0 {
            change.clear |= libc::MOUNT_ATTR_NODIRATIME;
        }
        change
    }

    /// What the recursive options say of access times.
    pub fn all_access_times(&self) -> AccessTimes {
        let mask = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME;
        let (set, clear) = (self.attributes.recursive_set & mask, self.attributes.recursive_clear & mask);
        let changed = if (set | clear) & libc::MOUNT_ATTR__ATIME != 0 { libc::MOUNT_ATTR__ATIME } else { 0 };
        AccessTimes { set, clear: clear | changed }
    }

    fn take(&mut self, option: &str) {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" | "ridmap" => self.id_map = true,
            "defaults" => {}
            _ => {
                if let Some((_, clear, flag)) = FLAGS.iter().find(|(name, ..)| *name == option) {
                    let attributes = &mut self.attributes;
                    change(*clear, *flag, &mut attributes.set, &mut attributes.clear);
                } else if let Some((_, flag)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
                    self.propagation.push(*flag);
                } else if let Some((_, clear, flag)) = RECURSIVE.iter().find(|(name, ..)| *name == option) {
                    self.take_recursive(*clear, *flag);
                } else {
                    self.data.push(option.to_owned());
                }
            }
        }
    }

    fn take_recursive(&mut self, clear: bool, flag: u64) {
        let attributes = &mut self.attributes;
        // Of two that contradict each other the one that sets wins, as with runc.
        let bits = if clear { &mut attributes.recursive_clear } else { &mut attributes.recursive_set };
        *bits |= flag;
        // mount_setattr(2): the access time is one setting of several bits, all of which must be cleared to change it.
        if flag & libc::MOUNT_ATTR__ATIME == flag {
            attributes.recursive_clear |= libc::MOUNT_ATTR__ATIME;
        }
    }
}

/// What a `rootfsPropagation` or a propagation option means; `None` for an unknown word.
pub fn propagation(word: &str) -> Option<u64> {
    PROPAGATION.iter().find(|(name, _)| *name == word).map(|(_, flag)| *flag)
}

/// Every option that husk honours, sorted, for `features`. (`idmap` is known, and refused.)
pub fn names() -> Vec<String> {
    let mut names: Vec<String> =
        ["bind", "rbind", "defaults", "tmpcopyup"].iter().map(ToString::to_string).collect();
    names.extend(FLAGS.iter().map(|(name, ..)| name.to_string()));
    names.extend(PROPAGATION.iter().map(|(name, _)| name.to_string()));
    names.extend(RECURSIVE.iter().map(|(name, ..)| name.to_string()));
    names.sort();
    names
}

/// A later word wins over an earlier one.
fn change(clear: bool, flag: u64, set_bits: &mut u64, clear_bits: &mut u64) {
    let (on, off) = if clear { (clear_bits, set_bits) } else { (set_bits, clear_bits) };
    *on |= flag;
    *off &= !flag;
}

/// `linux/mount.h` MS_*; the second column says that the word takes the flag away.
const FLAGS: [(&str, bool, u64); 29] = [
    ("async", true, libc::MS_SYNCHRONOUS),
    ("atime", true, libc::MS_NOATIME),
    ("dev", true, libc::MS_NODEV),
    ("diratime", true, libc::MS_NODIRATIME),
    ("dirsync", false, libc::MS_DIRSYNC),
    ("exec", true, libc::MS_NOEXEC),
    ("iversion", false, libc::MS_I_VERSION),
    ("lazytime", false, MS_LAZYTIME),
    ("loud", true, libc::MS_SILENT),
    ("mand", false, libc::MS_MANDLOCK),
    ("noatime", false, libc::MS_NOATIME),
    ("nodev", false, libc::MS_NODEV),
    ("nodiratime", false, libc::MS_NODIRATIME),
    ("noexec", false, libc::MS_NOEXEC),
    ("noiversion", true, libc::MS_I_VERSION),
    ("nolazytime", true, MS_LAZYTIME),
    ("nomand", true, libc::MS_MANDLOCK),
    ("norelatime", true, libc::MS_RELATIME),
    ("nostrictatime", true, libc::MS_STRICTATIME),
    ("nosuid", false, libc::MS_NOSUID),
    ("nosymfollow", false, MS_NOSYMFOLLOW),
    ("relatime", false, libc::MS_RELATIME),
    ("ro", false, libc::MS_RDONLY),
    ("rw", true, libc::MS_RDONLY),
    ("silent", false, libc::MS_SILENT),
    ("strictatime", false, libc::MS_STRICTATIME),
    ("suid", true, libc::MS_NOSUID),
    ("sync", false, libc::MS_SYNCHRONOUS),
    ("symfollow", true, MS_NOSYMFOLLOW),
];

/// The flags that say how access times are kept.
const ACCESS_TIMES: u64 = libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

const MS_LAZYTIME: u64 = 1 << 25;
const MS_NOSYMFOLLOW: u64 = 1 << 8;

const PROPAGATION: [(&str, u64); 8] = [
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// `linux/mount.h` MOUNT_ATTR_*.
const RECURSIVE: [(&str, bool, u64); 18] = [
    ("ratime", true, libc::MOUNT_ATTR_NOATIME),
    ("rdev", true, libc::MOUNT_ATTR_NODEV),
    ("rdiratime", true, libc::MOUNT_ATTR_NODIRATIME),
    ("rexec", true, libc::MOUNT_ATTR_NOEXEC),
    ("rnoatime", false, libc::MOUNT_ATTR_NOATIME),
    ("rnodev", false, libc::MOUNT_ATTR_NODEV),
    ("rnodiratime", false, libc::MOUNT_ATTR_NODIRATIME),
    ("rnoexec", false, libc::MOUNT_ATTR_NOEXEC),
    ("rnorelatime", true, libc::MOUNT_ATTR_RELATIME),
    ("rnostrictatime", true, libc::MOUNT_ATTR_STRICTATIME),
    ("rnosuid", false, libc::MOUNT_ATTR_NOSUID),
    ("rnosymfollow", false, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("rrelatime", false, libc::MOUNT_ATTR_RELATIME),
    ("rro", false, libc::MOUNT_ATTR_RDONLY),
    ("rrw", true, libc::MOUNT_ATTR_RDONLY),
    ("rstrictatime", false, libc::MOUNT_ATTR_STRICTATIME),
    ("rsuid", true, libc::MOUNT_ATTR_NOSUID),
    ("rsymfollow", true, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_set_and_a_later_word_takes_them_away() {
        let options = parse(&["nosuid", "ro", "rw", "noexec"]);
        assert_eq!(options.attributes.set, libc::MS_NOSUID | libc::MS_NOEXEC);
        assert_eq!(options.attributes.clear, libc::MS_RDONLY);
        assert!(!options.read_only());
    }

    #[test]
    fn a_source_gives_its_flags_to_a_mount_that_asks_for_none() {
        let mut options = parse(&["rbind", "exec", "rprivate"]);
        options.inherit(libc::MS_NOEXEC | libc::MS_NODEV);
        assert_eq!(options.attributes.set, libc::MS_NODEV);
        let mut options = parse(&["rbind", "ro"]);
        options.inherit(libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_NOATIME);
        assert_eq!(options.attributes.set, libc::MS_RDONLY | libc::MS_NOATIME);
    }

    #[test]
    fn access_times_are_changed_on_the_host_as_asked() {
        let times = |words: &[&str]| {
            let options = parse(words);
            let (top, all) = (options.access_times(), options.all_access_times());
            ((top.set, top.clear), (all.set, all.clear))
        };
        assert_eq!(times(&["rbind", "ro", "rro"]), ((0, 0), (0, 0)));
        assert_eq!(times(&["noatime"]), ((libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME), (0, 0)));
        assert_eq!(
            times(&["relatime", "nodiratime"]),
            ((libc::MOUNT_ATTR_NODIRATIME, libc::MOUNT_ATTR__ATIME), (0, 0))
        );
        assert_eq!(
            times(&["rstrictatime"]),
            ((0, 0), (libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME))
        );
        assert_eq!(
            times(&["rrelatime", "rdiratime"]),
            ((0, 0), (0, libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME))
        );
    }

    #[test]
    fn recursive_attributes_clear_all_of_the_access_time_when_they_change_it() {
        let options = parse(&["rro", "rnoatime"]);
        assert_eq!(options.attributes.recursive_set, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME);
        assert_eq!(options.attributes.recursive_clear, libc::MOUNT_ATTR__ATIME);
        assert!(options.read_only());
    }

    #[test]
    fn propagation_keeps_its_order_and_unknown_words_are_the_file_systems() {
        let options = parse(&["rprivate", "shared", "size=65536k", "defaults", "mode=755"]);
        assert_eq!(options.propagation, [libc::MS_PRIVATE | libc::MS_REC, libc::MS_SHARED]);
        assert_eq!(options.data, ["size=65536k", "mode=755"]);
    }

    #[test]
    fn binds_and_what_husk_does_not_do_are_told_apart() {
        assert_eq!((parse(&["bind"]).bind, parse(&["bind"]).recursive), (true, false));
        assert_eq!((parse(&["rbind"]).bind, parse(&["rbind"]).recursive), (true, true));
        assert!(parse(&["idmap"]).id_map && parse(&["ridmap"]).id_map);
        assert!(parse(&["remount"]).remount && parse(&["tmpcopyup"]).copy_up);
    }
}
