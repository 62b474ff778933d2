//! What goes through a container's standard streams: much, and little at a time.

use crate::contender::Background;
use crate::table::table;
use husk_integration::{
    bundle::{Bundle, Image},
    runtime::Runtime,
    scenario::{fresh_id, size},
};
use std::{
    io::{self, Read, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const CONTENDERS: [Runtime; 3] = [Runtime::Husk, Runtime::Runc, Runtime::Crun];

/// Both.
pub fn streams(rounds: usize) {
    poured(rounds);
    trips(rounds);
}

/// `bench pour BYTES`: what runs in the container.
pub fn pour(bytes: Option<String>) -> io::Result<()> {
    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
    let mut left: usize = bytes.ok_or_else(|| io::Error::other("usage: bench pour BYTES"))?;
    let chunk = vec![0x5a; 64 << 10];
    let mut stdout = io::stdout().lock();
    while left > 0 {
        let length = left.min(chunk.len());
        stdout.write_all(&chunk[..length])?;
        left -= length;
    }
    stdout.flush()
}

/// A stream from a container's stdout to a pipe of its caller, from its first byte to its last.
fn poured(rounds: usize) {
    let bytes: u64 = size(1 << 30, 32 << 20);
    let bundles = CONTENDERS.map(|_| {
        let bundle = Bundle::new(Image::Busybox, &["/bench", "pour", &bytes.to_string()]);
        let this = std::env::current_exe().expect("it was started from a file");
        std::fs::copy(this, bundle.rootfs().join("bench")).expect("it can be copied");
        bundle
    });
    let mut samples = vec![Vec::new(); CONTENDERS.len()];
    for round in 0..=rounds {
        for ((runtime, bundle), samples) in CONTENDERS.iter().zip(&bundles).zip(&mut samples) {
            let path = bundle.write().as_os_str();
            let mut child = runtime
                .command(["run".as_ref(), "-b".as_ref(), path, fresh_id().as_ref()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("it can be run");
            let mut stdout = child.stdout.take().expect("piped");
            let mut chunk = vec![0; 64 << 10];
            let mut seen = stdout.read(&mut chunk).expect("it can be read") as u64;
            let (begun, mut taken) = (Instant::now(), Duration::ZERO);
            loop {
                match stdout.read(&mut chunk).expect("it can be read") as u64 {
                    0 => break,
                    more => seen += more,
                }
                taken = begun.elapsed();
            }
            assert!(child.wait().expect("it is ours").success() && seen == bytes, "{seen} bytes of {bytes}");
            if round > 0 {
                samples.push(taken);
            }
        }
    }
    let title = format!("streams: {} MiB through stdout", bytes >> 20);
    table(&title, &["husk", "runc", "crun"], &mut samples, 1);
}

/// A byte to `exec ... cat` and back, one after the other.
fn trips(rounds: usize) {
    let trips: u32 = size(10_000, 200);
    let mut containers = CONTENDERS
        .map(|runtime| Background::start(runtime, Bundle::new(Image::Busybox, &["sleep", "100000"])));
    let mut cats: Vec<Child> = containers
        .iter()
        .map(|container| {
            container
                .runtime
                .command(["exec", &container.id, "cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("it can be run")
        })
        .collect();
    let mut samples = vec![Vec::new(); CONTENDERS.len()];
    for round in 0..=rounds {
        for (cat, samples) in cats.iter_mut().zip(&mut samples) {
            let stdin = cat.stdin.as_mut().expect("piped");
            let stdout = cat.stdout.as_mut().expect("piped");
            // The first round waits for its start as well, and is not counted.
            let begun = Instant::now();
            for _ in 0..trips {
                stdin.write_all(b"x").and_then(|()| stdout.read_exact(&mut [0])).expect("it answers");
            }
            if round > 0 {
                samples.push(begun.elapsed());
            }
        }
    }
    for cat in &mut cats {
        drop(cat.stdin.take());
        assert!(cat.wait().expect("it is ours").success());
    }
    containers.iter_mut().for_each(Background::end);
    let title = format!("streams: {trips} bytes to `exec cat` and back, one by one");
    table(&title, &["husk", "runc", "crun"], &mut samples, 1);
}
