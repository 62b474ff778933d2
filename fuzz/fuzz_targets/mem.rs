#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk::fuzzing::device::mem(bytes));
