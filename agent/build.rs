//! Packs the agent's relocations, which a static program applies to itself when it starts: they take a sixth of it.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rerun-if-changed=build.rs");
}
