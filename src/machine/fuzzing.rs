//! A kernel file of any content.

use super::boot::kernel;
use super::parts::Part;
use crate::device::memory;
use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, Write};

/// Loads it into a small guest.
pub fn kernel(bytes: &[u8]) {
    thread_local! {
        static FILE: RefCell<(File, std::path::PathBuf)> = RefCell::new(scratch());
    }
    let memory = memory::whole(&[(0, 4 << 20)]);
    FILE.with_borrow_mut(|(file, path)| {
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(bytes));
        written.expect("the fuzzer's file can be written");
        let Ok(part) = Part::open(path, "kernel") else { return };
        let room = 1 << 20..4 << 20;
        if let Ok(kernel) = kernel::load(&memory, &part, room.clone()) {
            assert!(room.contains(&kernel.start) && kernel.end <= room.end && room.contains(&kernel.entry));
        }
    });
}

fn scratch() -> (File, std::path::PathBuf) {
    let path = std::path::PathBuf::from(format!("/dev/shm/husk-fuzz-kernel-{}", std::process::id()));
    (File::create(&path).expect("a file for the fuzzer"), path)
}
