//! Tells the program which commit it was built from, if that can be found out: for `husk --version` and `features`. And
//! packs its relocations, which a static program applies to itself at each start.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=HUSK_COMMIT");
    let commit =
        std::env::var("HUSK_COMMIT").ok().or_else(commit_of_the_tree).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=HUSK_COMMIT={commit}");
    // 0.4 MB that every start would read, in a few KiB (glibc 2.36, binutils 2.38).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}

fn commit_of_the_tree() -> Option<String> {
    // The log of HEAD changes with every commit, wherever HEAD points.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
