//! Files behave as they do without a machine in between: on the root filesystem, and on what is shared with others.

use husk_integration::{
    bundle::{Bundle, Image},
    outside::Outside,
    running::{Running, kill},
    runtime::Runtime,
    scenario::{fresh_id, run, same_as_runc, size},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

/// What Docker leaves to a container, and more.
fn capable(bundle: &mut Bundle, more: &[&str]) {
    let docker =
        ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "SETFCAP", "SETGID", "SETUID"];
    let set: Value = docker.iter().chain(more).map(|name| json!(format!("CAP_{name}"))).collect();
    bundle.set("/process/capabilities", json!({"bounding": set, "effective": set, "permitted": set}));
}

#[test]
fn a_program_finds_its_files_as_under_runc() {
    let outside = Outside::new("program");
    let source = include_str!("../../../src/device/fs/tests/files.c");
    fs::write(outside.0.join("files.c"), source).expect("a file");
    let compile = ["gcc", "-O1", "-w", "-o", "/shared/files", "/shared/files.c"];
    run(Runtime::Runc, Image::Debian, &compile, |bundle| outside.bound(bundle, "/shared", &["rbind"])).ok();
    let names: u32 = size(100_000, 400);
    let script = format!(
        "mkdir /work; /shared/files /work {names}; echo on what is shared:; /shared/files /shared/work {names}"
    );
    let output = same_as_runc(Image::Debian, &["sh", "-c", &script], |bundle| {
        let work = outside.0.join("work");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).expect("a directory");
        outside.bound(bundle, "/shared", &["rbind"]);
        capable(bundle, &[]);
    });
    assert_eq!(output.stdout.matches("many: 0 twice, 0 missing").count(), 2, "{output:?}");
}

/// On a volume, as Docker in Docker has it.
#[test]
fn an_overlay_has_its_upper_directory_on_a_volume() {
    let outside = Outside::new("overlay");
    let script = "cd /shared; mkdir -p lower/d lower/gone upper work merged; echo below > lower/d/f; echo x > lower/gone/x; \
         ln -s f lower/d/soft; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged; cd merged; \
         echo above >> d/f; rm -r gone; mkdir gone; echo new > gone/y; mv d/f d/g; chown -h 5:5 d/soft; ls -A gone; cat d/g; \
         ls -A | sort | tr '\\n' ' '; cd ..; umount merged; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged; \
         cat merged/d/g; ls -A merged/d merged/gone; stat -c %u merged/d/soft; umount merged; stat -c %t:%T:%F upper/d/f";
    let output = run(Runtime::Husk, Image::Busybox, &["sh", "-ec", script], |bundle| {
        outside.bound(bundle, "/shared", &["rbind"]);
        capable(bundle, &["SYS_ADMIN"]);
    })
    .ok();
    assert_eq!(
        output.stdout,
        "y\nbelow\nabove\nd gone below\nabove\nmerged/d:\ng\nsoft\n\nmerged/gone:\ny\n5\n0:0:character special file\n"
    );
}

/// As Docker inside a container has it. The root filesystem is an overlay outside, on which no overlay can have its upper
/// directory; runc, for comparison, gets a plain filesystem.
#[test]
fn an_overlay_has_its_upper_directory_on_the_root_filesystem() {
    let outside = Outside::new("over");
    let script = r#"mkdir -p /over; cd /over
for how in index=off,redirect_dir=off redirect_dir=on,metacopy=on; do
  rm -rf lower upper work merged; mkdir -p lower/etc/conf.d lower/usr/lib/deep lower/usr/share upper work merged
  for f in etc/passwd etc/conf.d/a etc/conf.d/b usr/lib/one usr/lib/deep/two usr/share/s; do echo "lower $f" > lower/$f; done
  ln -s one lower/usr/lib/soft
  o() { mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,$how merged; }
  show() { cd $1; find . | sort | while read f; do stat -c '%n %F %t:%T %a %h' $f; [ ! -f $f ] || cat $f; done; cd ..; }
  o; cd merged
  rm etc/passwd; rm -r etc/conf.d; mkdir etc/conf.d; echo new > etc/conf.d/c
  mv usr/lib/one usr/lib/uno; mv usr/lib/deep/two usr/share/s; mv usr/share/s usr/lib/one
  echo again > etc/passwd; rm etc/passwd
  mv usr/lib usr/bib; chmod 600 usr/bib/uno; chown -h 5:6 usr/bib/soft; ln usr/bib/uno usr/hard
  mv usr/share usr/bib/share; cd ..
  echo "$how: merged"; show merged; umount merged
  echo "$how: upper"; show upper
  o; echo "$how: again"; show merged; umount merged
  mkdir -p next/upper next/work next/merged
  mount -t overlay overlay -o lowerdir=upper:lower,upperdir=next/upper,workdir=next/work,$how next/merged
  echo "$how: next"; cd next; show merged; cd ..; umount next/merged; rm -rf next
done"#;
    let expected = run(Runtime::Runc, Image::Busybox, &["sh", "-ec", script], |bundle| {
        outside.bound(bundle, "/over", &["rbind"]);
        capable(bundle, &["SYS_ADMIN"]);
    });
    let found =
        run(Runtime::Husk, Image::Busybox, &["sh", "-ec", script], |bundle| capable(bundle, &["SYS_ADMIN"]));
    let expected = expected.ok().stdout;
    assert!(expected.contains("./etc/passwd character special file 0:0 0"), "{expected}");
    assert_eq!(found.ok().stdout, expected);
}

#[test]
fn locks_are_between_containers_and_with_the_host() {
    let outside = Outside::new("locks");
    fs::write(outside.0.join("lock"), "").expect("a file");
    let bundle = |script: &str| {
        let mut bundle = Bundle::new(Image::Debian, &["sh", "-c", script]);
        outside.bound(&mut bundle, "/shared", &["rbind"]);
        bundle
    };
    let wait_for = |name: &str| {
        let there = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            outside.0.join(name).exists()
        });
        assert!(there, "{name} does not come");
    };
    // One holds a flock, and a range as fcntl has it.
    let hold = "exec 9>>/shared/lock; flock 9; perl -e 'use Fcntl; open F, \"+<\", \"/shared/lock\"; \
         my $l = pack(\"ssx4qqi\", F_WRLCK, 0, 2, 3, 0); fcntl(F, F_SETLK, $l) or die; open G, \">\", \"/shared/held\"; close G; \
         sleep 1 until -e \"/shared/enough\"'";
    let mut holder = Running::new(bundle(hold), Stdio::null(), Stdio::inherit());
    wait_for("held");
    let here = File::options().read(true).write(true).open(outside.0.join("lock")).expect("it is there");
    assert!(here.try_lock().is_err(), "the host gets a flock that a container has");
    let range = |start, len| libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: 0,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    let set = |start, len| nix::fcntl::fcntl(&here, nix::fcntl::FcntlArg::F_OFD_SETLK(&range(start, len)));
    assert_eq!(set(4, 1), Err(nix::errno::Errno::EAGAIN));
    assert_eq!(set(5, 1), Ok(0));
    // The other is refused, then waits and gets it.
    let other = "exec 9>>/shared/lock; flock -n 9 || echo refused; perl -e 'use Fcntl; open F, \"+<\", \"/shared/lock\"; \
         my $l = pack(\"ssx4qqi\", F_WRLCK, 0, 0, 3, 0); print fcntl(F, F_SETLK, $l) ? \"got\" : \"refused\", \"\\n\"'; \
         touch /shared/enough; flock 9 && echo got";
    let bundle = bundle(other);
    let path = bundle.write().to_owned();
    let output = Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()]);
    assert_eq!(output.ok().stdout, "refused\nrefused\ngot\n");
    assert_eq!(holder.end(), 0);
    assert_eq!(set(2, 3), Ok(0));
}

#[test]
fn who_waits_for_a_lock_that_another_has_hears_signals() {
    let outside = Outside::new("signals");
    let here = File::create(outside.0.join("lock")).expect("a file");
    here.lock().expect("nobody else has it");
    let all = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&here, nix::fcntl::FcntlArg::F_OFD_SETLK(&all)).expect("nobody else has it");
    // Whether the shell says "Killed" depends on what it hears first, that the process is gone or that it shall wait for it.
    let script = "perl -e 'use Fcntl qw(:DEFAULT :flock); $SIG{ALRM} = sub { print \"told\\n\" }; $| = 1; \
         open F, \"+<\", \"/shared/lock\"; alarm 1; flock(F, LOCK_EX) or print \"flock: $!\\n\"; \
         alarm 1; my $l = pack(\"ssx4qqi\", F_WRLCK, 0, 2, 3, 0); fcntl(F, F_SETLKW, $l) or print \"fcntl: $!\\n\"'; \
         exec 2>/dev/null; flock /shared/lock true & sleep 1; kill -9 $!; wait $!; echo $?";
    let output = same_as_runc(Image::Debian, &["sh", "-c", script], |bundle| {
        outside.bound(bundle, "/shared", &["rbind"]);
    });
    let interrupted = "Interrupted system call";
    assert_eq!(
        output.stdout,
        format!("told\nflock: {interrupted}\ntold\nfcntl: {interrupted}\n137\n"),
        "{output:?}"
    );
}

#[test]
fn a_mount_made_below_a_shared_source_shows_up_inside() {
    let outside = Outside::new("propagation");
    fs::create_dir(outside.0.join("later")).expect("a directory");
    // What callers do for it on their side: the source is a mount that passes on what is mounted below.
    let bind = |flags| mount(Some(&outside.0), &outside.0, None::<&str>, flags, None::<&str>);
    bind(MsFlags::MS_BIND).and_then(|()| bind(MsFlags::MS_SHARED)).expect("root may");
    let script = "echo ready > /shared/ready; until [ -e /shared/later/file ]; do sleep 0.2; done; cat /shared/later/file";
    let mut bundle = Bundle::new(Image::Busybox, &["sh", "-c", script]);
    outside.bound(&mut bundle, "/shared", &["rbind", "rslave"]);
    let out = outside.0.join("out");
    let seen = File::create(&out).expect("a file");
    let mut running = Running::new(bundle, seen.into(), Stdio::inherit());
    let later = outside.0.join("later");
    mount(Some("tmpfs"), &later, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("root may");
    fs::write(later.join("file"), "seen\n").expect("a file");
    let ended = husk_integration::runtime::wait(&mut running.child, Duration::from_secs(60));
    if ended.is_none() {
        kill(running.pid, libc::SIGKILL);
        let _ = running.end();
    }
    let text = fs::read_to_string(&out);
    unmount(&later);
    unmount(&outside.0);
    assert_eq!(text.expect("it was written"), "seen\n");
}

fn unmount(path: &Path) {
    umount2(path, MntFlags::MNT_DETACH).expect("it is mounted");
}

#[test]
fn a_full_volume_is_told_by_the_write_that_does_not_fit() {
    let outside = Outside::new("full");
    mount(Some("tmpfs"), &outside.0, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("root may");
    let script = "dd if=/dev/zero of=/shared/f bs=64k count=32 2>&1 | grep -c 'No space left'; stat -c %s /shared/f; \
         rm /shared/f; exec 3>/shared/g; dd if=/dev/zero bs=64k count=12 >&3 2>/dev/null; rm /shared/g; df -k /shared | tail -1 | tr -s ' ' | cut -d' ' -f3; \
         exec 3>&-; df -k /shared | tail -1 | tr -s ' ' | cut -d' ' -f3";
    let output = std::panic::catch_unwind(|| {
        same_as_runc(Image::Debian, &["sh", "-c", script], |bundle| {
            outside.bound(bundle, "/shared", &["rbind"]);
        })
    });
    unmount(&outside.0);
    assert_eq!(output.expect("the same").stdout, "1\n1048576\n768\n0\n");
}
