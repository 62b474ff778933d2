//! Many files, and limits of the file system below: what the host has room for, and no descriptor more than it gives.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    outside::Outside,
    running::Running,
    scenario::{same_as_runc, size},
};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

#[test]
fn a_walk_over_many_files_takes_few_descriptors() {
    let before = Census::take();
    {
        // A machine may have 4096 descriptors. Where there is less to be kept open, it is given a few only.
        let (directories, each, spare): (u32, u32, usize) = size((10_000, 100, 4096), (250, 2, 10));
        let outside = Outside::new("walk");
        let top = outside.0.join("top");
        for directory in 0..directories {
            let path = top.join(format!("{}/{}", directory % 50, directory / 50));
            fs::create_dir_all(&path).expect("a directory");
            (0..each).for_each(|file| fs::write(path.join(file.to_string()), "x").expect("a file"));
        }
        let script = "until [ -e /shared/go ]; do sleep 0.1; done; find /shared/top -type f | wc -l; \
             find /shared/top/7 -type f -size -2 | wc -l; cat /shared/top/49/*/0 | wc -c";
        let mut bundle = Bundle::new(Image::Debian, &["sh", "-c", script]);
        outside.bound(&mut bundle, "/shared", &["rbind"]);
        let out = outside.0.join("out");
        let mut running = Running::new(bundle, File::create(&out).expect("a file").into(), Stdio::inherit());
        let descriptors = || fs::read_dir(format!("/proc/{}/fd", running.pid)).map_or(0, Iterator::count);
        let limit = 4096.min(descriptors() + spare);
        let limited = Command::new("prlimit")
            .arg(format!("--pid={}", running.pid))
            .arg(format!("--nofile={limit}:{limit}"))
            .status()
            .expect("util-linux is there");
        assert!(limited.success());
        File::create(outside.0.join("go")).expect("a file");
        let mut most = 0;
        while running.child.try_wait().expect("it is ours").is_none() {
            most = most.max(descriptors());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(running.end(), 0);
        let counts = fs::read_to_string(&out).expect("it was written");
        eprintln!("at most {most} descriptors of {limit} for {} files", directories * each);
        let below = directories / 50;
        assert_eq!(counts, format!("{}\n{}\n{below}\n", directories * each, below * each));
        assert!(most > 30 && most <= limit, "{most} descriptors");
    }
    before.assert_unchanged();
}

#[test]
fn a_directory_of_many_names_lists_completely_while_it_changes() {
    let names: u32 = size(100_000, 2_000);
    let outside = Outside::new("names");
    let fill = |directory: &Path| {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir(directory).expect("a directory");
        (0..names).for_each(|number| {
            drop(File::create(directory.join(format!("stays-{number}"))).expect("a file"))
        });
    };
    // Names come and go while it is read: those that are there all the time are read, and read once.
    let script = format!(
        "for my $at (\"/shared/top\", \"/top\") {{ opendir D, $at or die; my ($i, %seen) = 0; \
         while (defined(my $name = readdir D)) {{ $seen{{$name}}++; next if ++$i % 50; \
         open F, \">\", \"$at/comes-$i\" or die; close F; unlink \"$at/comes-\" . ($i - 500); }} \
         my @missing = grep {{ !$seen{{\"stays-$_\"}} }} 0..{names}-1; my @twice = grep {{ /stays/ && $seen{{$_}} > 1 }} keys %seen; \
         print \"$at: \", scalar(@missing), \" missing, \", scalar(@twice), \" twice\\n\" }}"
    );
    let output = same_as_runc(Image::Debian, &["perl", "-e", &script], |bundle| {
        fill(&outside.0.join("top"));
        fill(&bundle.rootfs().join("top"));
        outside.bound(bundle, "/shared", &["rbind"]);
    });
    assert_eq!(output.stdout, "/shared/top: 0 missing, 0 twice\n/top: 0 missing, 0 twice\n");
}

/// A file system with quotas, in a file.
struct WithQuotas {
    outside: Outside,
}

impl WithQuotas {
    fn new() -> WithQuotas {
        let outside = Outside::new("quota");
        let (image, at) = (outside.0.join("image"), outside.0.join("at"));
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a file");
        fs::create_dir(&at).expect("a directory");
        let call = |program: &str, args: &[&str]| {
            let done = Command::new(program).args(args).output().expect("the program is there");
            assert!(done.status.success(), "{program} {args:?}: {done:?}");
        };
        let (image, at) = (image.to_str().expect("text"), at.to_str().expect("text"));
        call(
            "mke2fs",
            &[
                "-q",
                "-t",
                "ext4",
                "-O",
                "quota,project",
                "-I",
                "256",
                "-E",
                "quotatype=usrquota:prjquota",
                image,
            ],
        );
        call("mount", &["-o", "loop,usrquota,prjquota", image, at]);
        let quotas = WithQuotas { outside };
        for directory in ["user", "project", "free"] {
            fs::create_dir(quotas.path(directory)).expect("a directory");
        }
        let project = quotas.path("project");
        call("chattr", &["-p", "77", "+P", project.to_str().expect("text")]);
        quotas.limit(libc::USRQUOTA, 1000, 1 << 20, 20);
        quotas.limit(PRJQUOTA, 77, 2 << 20, 30);
        quotas
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.outside.0.join("at").join(name)
    }

    /// At most that many bytes and inodes.
    fn limit(&self, kind: i32, id: i32, bytes: u64, inodes: u64) {
        let device = fs::read_to_string("/proc/self/mounts").expect("it is there");
        let at = self.path("").to_string_lossy().trim_end_matches('/').to_owned();
        let device = device.lines().find(|line| line.split(' ').nth(1) == Some(&at)).expect("it is mounted");
        let device = std::ffi::CString::new(device.split(' ').next().expect("a device")).expect("no zero");
        // SAFETY: all zeroes are valid for a struct of integers.
        #[allow(unsafe_code)]
        let mut quota: libc::dqblk = unsafe { std::mem::zeroed() };
        (quota.dqb_bhardlimit, quota.dqb_ihardlimit) = (bytes / 1024, inodes);
        quota.dqb_valid = libc::QIF_LIMITS;
        // SAFETY: the name ends with a zero and the struct is what Q_SETQUOTA reads; both live across the call.
        #[allow(unsafe_code)]
        let done = unsafe {
            libc::quotactl(libc::QCMD(libc::Q_SETQUOTA, kind), device.as_ptr(), id, (&raw mut quota).cast())
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for WithQuotas {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path("")).status();
    }
}

const PRJQUOTA: i32 = 2;

#[test]
fn quotas_of_users_and_projects_hold_inside() {
    let quotas = WithQuotas::new();
    let script = r#"
use strict;
my $block = "x" x 65536;
sub fill {
    my ($path) = @_;
    open(my $h, ">", $path) or return print("$path: open: $!\n");
    my $error = "";
    for (1..64) { my $n = syswrite($h, $block); if (!defined $n) { $error = $!; last } }
    printf "%s: %s at %d, allocate: %s\n", $path, $error || "fits", -s $h, (syscall(285, fileno $h, 0, 0, 8 << 20) < 0 ? $! : "fits");
    close $h; unlink $path;
}
sub files {
    my ($path) = @_;
    my $n = 0;
    for (1..50) { if (!open(my $h, ">", "$path/$_")) { print "$path/: $! after $n\n"; last } $n++ }
    unlink "$path/$_" for 1..50;
}
fill("/q/free/root"); fill("/q/project/root"); files("/q/project");
mkdir "/q/project/below"; fill("/q/project/below/root"); rmdir "/q/project/below";
print "rename: ", (rename("/q/free/kept", "/q/project/kept") ? "done" : $!), ", link: ", (link("/q/free/kept", "/q/project/kept") ? "done" : $!), "\n";
print "give: ", (chown(1000, 1000, "/q/free/large") ? "done" : $!), "\n";
$( = 1000; $) = "1000 1000"; $< = 1000; $> = 1000;
fill("/q/user/user"); files("/q/user"); fill("/q/project/user");
"#;
    let output = same_as_runc(Image::Debian, &["perl", "-e", script], |bundle| {
        for (name, content) in [("kept", 10), ("large", 3 << 20)] {
            let _ = fs::remove_file(quotas.path("project").join("kept"));
            fs::write(quotas.path("free").join(name), vec![7; content]).expect("a file");
            std::os::unix::fs::chown(quotas.path("free").join(name), Some(0), Some(0)).expect("root may");
        }
        for directory in ["user", "project", "free"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(quotas.path(directory), mode).expect("it is ours");
        }
        Outside::mount(bundle, &quotas.path(""), "/q", &["rbind"]);
        crate::r_work::as_docker(bundle);
    });
    assert!(output.stdout.matches("Disk quota exceeded").count() >= 6, "{output:?}");
}
