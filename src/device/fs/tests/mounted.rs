//! Real work through a real kernel.

use super::super::Policy;
use super::mount::{Mounted, Setup};
use super::tree::{assert_same, describe, grow};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Packs one directory and unpacks it in another, everything included.
fn copy_with_tar(from: &Path, to: &Path) {
    let everything = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse"];
    let mut pack = Command::new("tar")
        .args(everything)
        .args(["-cf", "-", "-C"])
        .arg(from)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let unpacked = Command::new("tar")
        .args(everything)
        .args(["-xpf", "-", "-C"])
        .arg(to)
        .stdin(pack.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(unpacked.success() && pack.wait().unwrap().success());
}

/// One after the other: the machines that run tests have few cores, and these tests keep two of them busy.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn a_tree_goes_in_and_out_unchanged(setup: Setup, files: usize) {
    let _alone = alone();
    let Some(mounted) = Mounted::new(setup) else { return };
    let (original, back) = (mounted.beside.join("original"), mounted.beside.join("back"));
    fs::create_dir(&back).unwrap();
    grow(&original, files);
    let expected = describe(&original);
    copy_with_tar(&original, &mounted.inside);
    assert_same(&expected, &describe(&mounted.inside));
    copy_with_tar(&mounted.inside, &back);
    assert_same(&expected, &describe(&back));
    rustix::fs::syncfs(File::open(&mounted.inside).unwrap()).unwrap();
    assert_same(&expected, &describe(&mounted.outside));
    let removed = Command::new("rm").arg("-rf").arg(mounted.inside.join("d0")).status().unwrap();
    assert!(removed.success() && !mounted.outside.join("d0").exists());
}

#[test]
fn a_tree_of_20_000_files_goes_in_and_out_unchanged() {
    a_tree_goes_in_and_out_unchanged(Setup { in_memory: true, ..Setup::default() }, 20_000);
}

#[test]
fn a_tree_on_disk_goes_in_and_out_unchanged() {
    a_tree_goes_in_and_out_unchanged(Setup::default(), 1000);
}

#[test]
fn a_shared_tree_goes_in_and_out_unchanged() {
    a_tree_goes_in_and_out_unchanged(Setup { policy: Policy::Shared, in_memory: true, ..Setup::default() }, 3000);
}
