//! One file, changed at random in every way there is, mapped and not.

use super::mounted::in_each;
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

#[test]
fn random_changes_to_one_file_are_those_to_a_buffer() {
    in_each(|mounted| {
        let path = mounted.inside.join("fsx");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut model: Vec<u8> = Vec::new();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for step in 0..3000 {
            let (at, len) = (next(200_000), next(30_000) + 1);
            match next(9) {
                0 | 1 => {
                    let data: Vec<u8> = (0..len).map(|_| next(256) as u8).collect();
                    file.write_all_at(&data, at).unwrap();
                    let end = (at + len) as usize;
                    model.resize(model.len().max(end), 0);
                    model[at as usize..end].copy_from_slice(&data);
                }
                2 => {
                    file.set_len(at).unwrap();
                    model.resize(at as usize, 0);
                }
                3 if !model.is_empty() => {
                    rustix::fs::fallocate(
                        &file,
                        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                        at,
                        len,
                    )
                    .unwrap();
                    let end = model.len().min((at + len) as usize);
                    model.get_mut(at as usize..end).unwrap_or_default().fill(0);
                }
                4 => {
                    rustix::fs::fallocate(&file, FallocateFlags::empty(), at, len).unwrap();
                    model.resize(model.len().max((at + len) as usize), 0);
                }
                5 if (model.len() as u64) > len => {
                    // To an offset behind the source: the two may not overlap.
                    let from = next(model.len() as u64 - len);
                    let (mut off_in, mut off_out) = (from, from + len + at);
                    let copied = rustix::fs::copy_file_range(
                        &file,
                        Some(&mut off_in),
                        &file,
                        Some(&mut off_out),
                        len as usize,
                    )
                    .unwrap();
                    let end = (from + len + at) as usize + copied;
                    model.resize(model.len().max(end), 0);
                    model.copy_within(from as usize..from as usize + copied, end - copied);
                }
                6 if !model.is_empty() => {
                    let len = model.len().next_multiple_of(4096);
                    let mut map = Map::of(&file, len);
                    assert!(map.bytes()[..model.len()] == model[..], "mapped contents differ at step {step}");
                    let at = next(model.len() as u64) as usize;
                    map.bytes()[at] = 0x5a;
                    model[at] = 0x5a;
                }
                7 if step % 50 == 0 => file.sync_all().unwrap(),
                8 if step % 20 == 0 => {
                    // What the client's cache holds must not matter.
                    file.sync_data().unwrap();
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                }
                _ => {
                    let mut data = vec![0; len as usize];
                    let read = file.read_at(&mut data, at).unwrap();
                    let expected = model.get(at as usize..).unwrap_or_default();
                    let expected = &expected[..expected.len().min(len as usize)];
                    assert!(data[..read] == *expected, "contents differ at step {step}");
                }
            }
            assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "step {step}");
            if step % 500 == 0 && !model.is_empty() {
                let hole = rustix::fs::seek(&file, SeekFrom::Hole(0)).unwrap();
                assert!(hole <= model.len() as u64);
            }
        }
        file.sync_all().unwrap();
        assert!(fs::read(mounted.outside.join("fsx")).unwrap() == model);
    });
}

/// A shared mapping of a file.
struct Map(std::ptr::NonNull<std::ffi::c_void>, usize);

#[allow(unsafe_code, reason = "mmap")]
impl Map {
    fn of(file: &File, len: usize) -> Map {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let length = std::num::NonZero::new(len).unwrap();
        // SAFETY: a new mapping, at an address of the kernel's choice.
        Map(unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }.unwrap(), len)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as `self` lives, and nobody changes the file meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), self.1) }
    }
}

#[allow(unsafe_code, reason = "munmap")]
impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and not used any more.
        unsafe { nix::sys::mman::munmap(self.0, self.1) }.unwrap();
    }
}
