//! Scenarios: the same thing done with husk and with runc, and what came of it compared.

use crate::{
    bundle::{Bundle, Image},
    census::Census,
    runtime::{Output, Runtime},
};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An id that no other test of this run uses.
pub fn fresh_id() -> String {
    format!("it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How large a test may be: `full` where guests run on real hardware or `HUSK_FULL` is set; in the emulated machine,
/// where every exit of a guest costs hundreds of microseconds, `emulated`.
pub fn size<T: std::fmt::Debug>(full: T, emulated: T) -> T {
    let set = |name| std::env::var_os(name).is_some();
    if set("HUSK_EMULATED") && !set("HUSK_FULL") {
        eprintln!("emulated machine: {emulated:?} instead of {full:?} (HUSK_FULL=1 for all)");
        emulated
    } else {
        full
    }
}

/// Whether a test may be run that takes minutes in the emulated machine; says so if not.
pub fn whole() -> bool {
    size(true, false)
}

/// Runs `args` in a fresh bundle of `image` that `change` may alter, in the foreground, and checks that nothing is left.
#[track_caller]
pub fn run(runtime: Runtime, image: Image, args: &[&str], change: impl Fn(&mut Bundle)) -> Output {
    let before = Census::take();
    let output = {
        let mut bundle = Bundle::new(image, args);
        change(&mut bundle);
        let path = bundle.write().to_owned();
        runtime.call(["run".as_ref(), "--bundle".as_ref(), path.as_os_str(), fresh_id().as_ref()])
    };
    before.assert_unchanged();
    output
}

/// Runs `bundle` under husk, with an operator's configuration of its own; what is left of the container is deleted.
#[track_caller]
pub fn run_configured(bundle: &Bundle, configuration: &str) -> Output {
    let (config, id) = (bundle.path.join("husk.toml"), fresh_id());
    std::fs::write(&config, configuration).expect("it can be written");
    let output = Runtime::Husk.call([
        "--config".as_ref(),
        config.as_os_str(),
        "run".as_ref(),
        "-b".as_ref(),
        bundle.write().as_os_str(),
        id.as_ref(),
    ]);
    let _ = Runtime::Husk.call(["delete", "--force", &id]);
    output
}

/// Runs a shell script in busybox under husk.
#[track_caller]
pub fn sh(script: &str) -> Output {
    run(Runtime::Husk, Image::Busybox, &["sh", "-c", script], |_| {})
}

/// Runs the same in a fresh bundle under runc and under husk; panics unless status and output are the same.
#[track_caller]
pub fn same_as_runc(image: Image, args: &[&str], change: impl Fn(&mut Bundle)) -> Output {
    let expected = run(Runtime::Runc, image, args, &change);
    let seen = run(Runtime::Husk, image, args, &change);
    assert_eq!(seen, expected, "husk (left) and runc (right) differ for {args:?}");
    seen
}
