//! Options of bind mounts, on what is mounted below the source as well: what the container sees is what it sees under runc.

use husk_integration::{
    bundle::Image,
    outside::Outside,
    runtime::Runtime,
    scenario::{run, same_as_runc},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::{
    fs::{self, File, FileTimes},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Each list of options is one bind mount; what is mounted below its source is looked at as well.
const LISTS: [&[&str]; 16] = [
    &["rbind"],
    &["bind"],
    &["rbind", "rro"],
    &["rbind", "ro", "rro"],
    &["bind", "rro"],
    &["rbind", "rnosuid"],
    &["rbind", "rnodev"],
    &["rbind", "rnoexec"],
    &["rbind", "rnosymfollow"],
    &["rbind", "rnoatime"],
    &["rbind", "rrelatime"],
    &["rbind", "rstrictatime"],
    &["rbind", "rnodiratime"],
    &["rbind", "rnosuid", "rnodev", "rnoexec", "rro", "rnoatime"],
    &["rbind", "rro", "rrw"],
    &["bind", "nosymfollow", "nodiratime"],
];

/// The same, but only at the top: what is mounted below has the options of what it is in, with husk.
const PLAIN: [&[&str]; 5] = [
    &["rbind", "ro"],
    &["rbind", "nosuid", "nodev", "noexec"],
    &["rbind", "ro", "rrw"],
    &["rbind", "noatime"],
    &["rbind", "nosuid", "rsuid", "noexec", "rexec", "nodev", "rdev"],
];

/// The same of a source that has options of its own.
const OF_STRICT: [&[&str]; 4] = [&["rbind"], &["rbind", "ro"], &["bind", "nosuid"], &["bind", "rnodev"]];

/// Where there is something to be used, below the source.
const PLACES: [&str; 3] = [".", "plain", "plain/deeper"];

/// Mounts below `source`, undone on drop.
struct Below(Vec<PathBuf>);

impl Below {
    fn add(&mut self, at: &Path, flags: MsFlags) {
        fs::create_dir_all(at).expect("a directory");
        mount(Some("tmpfs"), at, Some("tmpfs"), flags, None::<&str>).expect("root may");
        self.0.push(at.to_owned());
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}

/// A program, a link and a device, to be used through the mount.
fn fill(directory: &Path) {
    let program = directory.join("program");
    fs::write(&program, "#!/bin/sh\n").expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    std::os::unix::fs::symlink("program", directory.join("link")).expect("a link");
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666));
    nix::sys::stat::mknod(&directory.join("null"), kind, mode, libc::makedev(1, 3)).expect("root may");
}

/// Uses what is there through the mounts `/m0` to `/m$1`, and through those after them, up to `/m$2`, only at the top.
const LOOK: &str = r#"
use() {
    cd /m$1/$2 || return
    w=- x=- l=- n=- a=-
    true > new && w=w; rm -f new; ./program && x=x; cat link > /dev/null && l=l; true > null && n=n
    cat old$1 > /dev/null; [ $(stat -c %X old$1) = 1000000000 ] || a=a
    echo "m$1/$2 $w$x$l$n$a"
}
(for m in $(seq 0 $1); do for d in . plain plain/deeper; do use $m $d; done; done) 2> /dev/null
(for m in $(seq $(($1 + 1)) $2); do use $m .; done) 2> /dev/null
sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* .\(m[0-9][^ ]* [^ ]*\) .*/\1/p' /proc/self/mountinfo | sort |
    while read place options; do
        number=${place#m}; number=${number%%/*}
        case $place in */*) [ $number -gt $1 ] && continue ;; esac
        echo $place $options
    done
"#;

/// Makes what is read old, so that reading it may change its access time.
fn age(directory: &Path, number: usize) {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let mut file = File::create(directory.join(format!("old{number}"))).expect("a file");
    let times = FileTimes::new().set_accessed(old).set_modified(old);
    file.write_all(b"old").and_then(|()| file.set_times(times)).expect("it is ours");
}

#[test]
fn options_hold_on_the_source_and_on_what_is_mounted_below_it() {
    let outside = Outside::new("options");
    let mut below = Below(Vec::new());
    let (top, strict) = (outside.0.join("top"), outside.0.join("strict"));
    fs::create_dir(&top).expect("a directory");
    // Mounts of their own, whose flags are known.
    for name in PLACES {
        below.add(&top.join(name), MsFlags::empty());
        fill(&top.join(name));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    below.add(&strict, flags);
    fill(&strict);
    let mounts: Vec<(&Path, &[&str])> = LISTS
        .iter()
        .chain(&PLAIN)
        .map(|options| (top.as_path(), *options))
        .chain(OF_STRICT.iter().map(|options| (strict.as_path(), *options)))
        .collect();
    // Each mount has files of its own: one that was read is not old any more.
    let numbers = [LISTS.len() - 1, mounts.len() - 1].map(|number| number.to_string());
    let output =
        same_as_runc(Image::Busybox, &["sh", "-c", LOOK, "sh", &numbers[0], &numbers[1]], |bundle| {
            for (number, (source, options)) in mounts.iter().enumerate() {
                Outside::mount(bundle, source, &format!("/m{number}"), options);
                let below = if *source == strict { &PLACES[..1] } else { &PLACES[..] };
                below.iter().for_each(|name| age(&source.join(name), number));
            }
            let set = json!(["CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD"]);
            bundle.set("/process/capabilities", json!({"bounding": set, "effective": set, "permitted": set}));
            // Any device may be used, so that only the mount forbids it.
            bundle.set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]));
        });
    let has = |line: &str| output.stdout.lines().any(|seen| seen == line);
    assert!(has("m0/plain/deeper wxlna") && has("m2/plain -xln-"), "{output:?}");
}

#[test]
fn what_is_mounted_below_has_the_options_of_what_it_is_in() {
    let outside = Outside::new("below");
    let mut below = Below(Vec::new());
    below.add(&outside.0, MsFlags::empty());
    below.add(&outside.0.join("plain"), MsFlags::empty());
    let script =
        "ls /m/plain; touch /m/plain/x && echo written; grep ' /m' /proc/self/mountinfo | cut -d' ' -f5,6";
    let output = run(Runtime::Husk, Image::Busybox, &["sh", "-c", script], |bundle| {
        outside.bound(bundle, "/m", &["rbind", "ro", "noexec"]);
    });
    assert_eq!(output.stdout, "/m ro,noexec,relatime\n/m/plain ro,noexec,relatime\n", "{output:?}");
}
