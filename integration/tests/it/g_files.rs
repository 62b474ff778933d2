//! Files of the root filesystem: what the guest makes is what the host has.

use husk_integration::{
    bundle::{Bundle, Image},
    runtime::Runtime,
    scenario::{fresh_id, same_as_runc},
};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

#[test]
fn ownership_modes_links_and_special_files_survive() {
    let mut bundle = Bundle::new(
        Image::Busybox,
        &[
            "sh",
            "-ec",
            "mkdir -p /t/d; cd /t; echo x > f; chown 1000:2000 f; chmod 4750 f; ln f hard; ln -s ../etc/passwd soft; \
             mkfifo -m 640 fifo; mknod -m 600 null c 1 3; mknod block b 7 200; chmod 1777 d; touch -d '2001-02-03 04:05:06' old; \
             dd if=/dev/zero of=sparse bs=1 count=1 seek=104857599 2>/dev/null; : > gone; rm gone; mv d e",
        ],
    );
    let set = serde_json::json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD"]);
    bundle.set(
        "/process/capabilities",
        serde_json::json!({"bounding": set, "effective": set, "permitted": set}),
    );
    let path = bundle.write().to_owned();
    Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()]).ok();
    let meta = |name: &str| bundle.rootfs().join("t").join(name).symlink_metadata().expect("it is there");
    let file = meta("f");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.nlink()), (1000, 2000, 0o4750, 2));
    assert_eq!(file.ino(), meta("hard").ino());
    assert_eq!(
        std::fs::read_link(bundle.rootfs().join("t/soft")).expect("a link").to_str(),
        Some("../etc/passwd")
    );
    assert!(meta("fifo").file_type().is_fifo() && meta("fifo").mode() & 0o777 == 0o640);
    assert!(meta("null").file_type().is_char_device() && meta("null").rdev() == libc::makedev(1, 3));
    assert!(meta("block").file_type().is_block_device() && meta("block").rdev() == libc::makedev(7, 200));
    assert_eq!(meta("e").mode() & 0o7777, 0o1777);
    assert_eq!(meta("old").mtime(), 981_173_106);
    assert!(meta("sparse").size() == 104_857_600 && meta("sparse").blocks() < 1000, "{:?}", meta("sparse"));
    assert!(bundle.rootfs().join("t/gone").symlink_metadata().is_err());
}

#[test]
fn what_the_host_put_there_is_seen_the_same_inside() {
    let bundle = Bundle::new(Image::Busybox, &["true"]);
    let top = bundle.rootfs().join("t");
    std::fs::create_dir(&top).expect("a directory");
    for (name, owner) in [("a", 0), ("b", 1234)] {
        std::fs::write(top.join(name), name).expect("a file");
        std::os::unix::fs::chown(top.join(name), Some(owner), Some(owner + 1)).expect("root may");
    }
    let mut bundle = bundle;
    bundle.args(&["stat", "-c", "%n %u %g %a %s", "/t/a", "/t/b"]);
    let path = bundle.write().to_owned();
    let output =
        Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()]).ok();
    assert_eq!(output.stdout, "/t/a 0 1 644 1\n/t/b 1234 1235 644 1\n");
}

#[test]
fn a_tree_of_files_is_written_listed_and_removed_as_under_runc() {
    same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-ec",
            "mkdir /t; cd /t; for d in 1 2 3 4 5; do mkdir $d; for f in $(seq 100); do echo $d.$f > $d/$f; done; done; \
             find . -type f | wc -l; find . -type f | sort | xargs cat | md5sum; tar c . | tar t | wc -l; \
             for d in 1 2; do rm -r $d; done; find . | wc -l; mv 3/1 4/moved; cat 4/moved; cp -a 4 copy; ls copy | wc -l",
        ],
        |_| {},
    );
}

#[test]
fn a_bind_mount_shares_a_directory_and_a_single_file() {
    let outside = std::path::PathBuf::from(format!("/var/tmp/husk-it/{}-bind", std::process::id()));
    std::fs::create_dir_all(outside.join("dir")).expect("a directory");
    std::fs::write(outside.join("dir/file"), "from the host\n").expect("a file");
    std::fs::write(outside.join("single"), "alone\n").expect("a file");
    std::fs::write(outside.join("secret"), "not shared\n").expect("a file");
    same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "cat /shared/file /etc/single; echo new > /shared/new; echo more >> /etc/single; echo no > /readonly/x || echo refused; ls /shared; ls -A /etc/single/.. | grep -c secret",
        ],
        |bundle| {
            let _ = std::fs::remove_file(outside.join("dir/new"));
            std::fs::write(outside.join("single"), "alone\n").expect("a file");
            let mounts = bundle.config["mounts"].as_array_mut().expect("an array");
            let bind = |from: &str, to: &str, options: &[&str]| serde_json::json!({"destination": to, "type": "bind", "source": outside.join(from), "options": options});
            mounts.push(bind("dir", "/shared", &["rbind", "rprivate"]));
            mounts.push(bind("single", "/etc/single", &["bind"]));
            mounts.push(bind("dir", "/readonly", &["bind", "ro"]));
        },
    );
    assert_eq!(std::fs::read_to_string(outside.join("dir/new")).expect("it was written"), "new\n");
    assert_eq!(std::fs::read_to_string(outside.join("single")).expect("it is there"), "alone\nmore\n");
    let _ = std::fs::remove_dir_all(outside);
}
