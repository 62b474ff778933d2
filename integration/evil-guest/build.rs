//! Links the program as a kernel is linked: at a fixed address, with nothing that it did not bring along.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rerun-if-changed=link.ld");
    let script = format!("-Wl,-T,{directory}/link.ld");
    for argument in ["-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,norelro", &script]
    {
        println!("cargo::rustc-link-arg-bin=evil-guest={argument}");
    }
}
