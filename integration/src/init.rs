//! Guests whose first process is not the agent.

use crate::bundle::Bundle;

/// An operator's configuration with another program in the place of the agent, and nothing else in its file system.
pub fn with_init(bundle: &Bundle, init: &[u8], boot_timeout_ms: u32) -> String {
    configuration(bundle, &entry("init", 0o100_755, 0, init), boot_timeout_ms)
}

/// The same of a program that wants standard descriptors: the null device is its console, as it is the agent's.
pub fn with_init_and_null(bundle: &Bundle, init: &[u8], boot_timeout_ms: u32) -> String {
    let mut entries = entry("dev", 0o40_755, 0, &[]);
    // Of another kind first: the kernel's built-in archive holds a console already.
    entries.extend(entry("dev/console", 0o100_600, 0, &[]));
    entries.extend(["dev/console", "dev/null"].into_iter().flat_map(|name| entry(name, 0o20_666, NULL, &[])));
    entries.extend(entry("init", 0o100_755, 0, init));
    configuration(bundle, &entries, boot_timeout_ms)
}

fn configuration(bundle: &Bundle, entries: &[u8], boot_timeout_ms: u32) -> String {
    let initrd = bundle.path.join("initrd");
    let archive = [entries, &entry("TRAILER!!!", 0, 0, &[])].concat();
    std::fs::write(&initrd, archive).expect("it can be written");
    format!("[machine]\ninitrd = {initrd:?}\nboot_timeout_ms = {boot_timeout_ms}\n")
}

/// One entry of an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst), which may be a memory device.
fn entry(name: &str, mode: u32, minor: u32, data: &[u8]) -> Vec<u8> {
    let (length, major) = (data.len() as u32, u32::from(minor > 0));
    let fields = [0, mode, 0, 0, 1, 0, length, 0, 0, major, minor, name.len() as u32 + 1, 0];
    let mut entry: Vec<u8> = b"070701".to_vec();
    entry.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
    entry.extend(name.bytes().chain([0]));
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(data);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

/// The null device's number among the memory devices.
const NULL: u32 = 3;
