//! `husk run`, end to end: a bundle, a guest, an exit status.

use husk_integration::{
    bundle::Image,
    runtime::Runtime,
    scenario::{run, same_as_runc, sh},
};

#[test]
fn true_ends_with_status_zero_and_prints_nothing() {
    let output = run(Runtime::Husk, Image::Busybox, &["true"], |_| {});
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", ""));
}

#[test]
fn the_status_of_the_program_is_the_status_of_the_command() {
    for code in [1, 42, 125, 255] {
        assert_eq!(sh(&format!("exit {code}")).code, code);
    }
}

#[test]
fn a_signal_n_counts_as_128_plus_n() {
    same_as_runc(Image::Busybox, &["sh", "-c", "kill -TERM $$"], |_| {});
    // The first process of a pid namespace cannot kill itself with SIGKILL; its child can.
    same_as_runc(Image::Busybox, &["sh", "-c", "sh -c 'kill -KILL $$'; echo $?"], |_| {});
}

#[test]
fn stdout_and_stderr_arrive_apart() {
    let output = sh("echo out; echo err >&2").ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn the_kernel_inside_is_not_the_hosts() {
    let host = nix::sys::utsname::uname().expect("uname works").release().to_string_lossy().into_owned();
    let guest = sh("uname -r").ok().stdout;
    assert!(guest.starts_with("6.12."), "the guest's kernel is {guest}");
    assert_ne!(guest.trim(), host);
}

#[test]
fn what_the_container_writes_is_in_the_bundles_root() {
    let bundle =
        husk_integration::bundle::Bundle::new(Image::Busybox, &["sh", "-c", "echo hello > /written"]);
    let path = bundle.write().to_owned();
    Runtime::Husk
        .call([
            "run".as_ref(),
            "-b".as_ref(),
            path.as_os_str(),
            husk_integration::scenario::fresh_id().as_ref(),
        ])
        .ok();
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("written")).expect("it was written"), "hello\n");
}
