//! What containers take of the host's memory: idle ones, what comes back of what one has used, and files that one has read.

use crate::{
    contender::{Idle, RUNC, Ways},
    footprint::{number_of, of_the_group, of_the_guest, of_the_host, pss},
    table::Grid,
};
use husk_integration::{
    bundle::{Bundle, Image},
    scenario::size,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::json;
use std::{fs::File, thread::sleep, time::Duration};

const MIB: u64 = 1 << 20;
/// How many come after the first.
const FURTHER: usize = 3;

/// All of it.
pub fn memory(rounds: usize) {
    let ways = Ways::new();
    idle(rounds, &ways);
    given_back(rounds, &ways);
    files(rounds, &ways);
}

/// A container's own, and what each further one adds.
fn idle(rounds: usize, ways: &Ways) {
    let contenders = [&RUNC, &ways.cold, &ways.copy];
    let names = [
        "an idle busybox container",
        "each further one",
        "the guest's memory in it, kernel included",
        "the rest of its machine process",
    ];
    let mut lines = names.map(|name| (name.to_owned(), vec![Vec::new(); contenders.len()]));
    for _ in 0..rounds {
        for (at, contender) in contenders.into_iter().enumerate() {
            let first = contender.idle();
            // A guest gives back what its own start has freed.
            sleep(Duration::from_secs(3));
            let mut keep = |line: usize, kib: u64| lines[line].1[at].push(kib as f64 / 1024.0);
            let alone = pss(first.pid);
            keep(0, alone);
            if contender.name != RUNC.name {
                let guest = of_the_guest(first.pid);
                keep(2, guest);
                keep(3, alone.saturating_sub(guest));
            }
            let mut all = vec![first];
            all.extend((0..FURTHER).map(|_| contender.idle()));
            sleep(Duration::from_secs(3));
            let together: u64 = all.iter().map(|container| pss(container.pid)).sum();
            keep(1, together.saturating_sub(alone) / FURTHER as u64);
        }
    }
    let title = format!("memory: proportional set size, medians of {rounds} rounds");
    let remark = format!("Further ones: the mean of {FURTHER}, from the sum of all.");
    Grid {
        title,
        unit: "MiB",
        contenders: &contenders.map(|contender| contender.name),
        lines: lines.into(),
        remarks: vec![remark],
    }
    .print();
}

/// What the host has back of memory that was used and freed inside.
fn given_back(rounds: usize, ways: &Ways) {
    let used: u64 = size(512, 128);
    let contenders = [&RUNC, &ways.cold];
    let names = [
        "before",
        "in use",
        "2 s after it was freed",
        "10 s after it was freed",
        "of what was used, the host has back",
    ];
    let mut lines = names.map(|name| (name.to_owned(), vec![Vec::new(); contenders.len()]));
    for _ in 0..rounds {
        for (at, contender) in contenders.into_iter().enumerate() {
            let mut bundle = Bundle::new(Image::Busybox, &["sleep", "100000"]);
            bundle.set("/linux/resources", json!({"memory": {"limit": 1024 * MIB}}));
            let options =
                json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["size=1g"]});
            bundle.set("/mounts/-", options);
            let container = contender.idle_with(bundle);
            sleep(Duration::from_secs(3));
            let mut held = Vec::new();
            let mut look = || held.push(of_the_group(container.pid));
            look();
            container.exec(&["dd", "if=/dev/zero", "of=/m/x", "bs=1M", &format!("count={used}")]);
            look();
            container.exec(&["rm", "/m/x"]);
            sleep(Duration::from_secs(2));
            look();
            sleep(Duration::from_secs(8));
            look();
            held.push(held[1] - held[3]);
            lines.iter_mut().zip(held).for_each(|(line, held)| line.1[at].push(held));
        }
    }
    let title = format!(
        "memory: {used} MiB used and freed, what the control group holds, medians of {rounds} rounds"
    );
    Grid {
        title,
        unit: "MiB",
        contenders: &contenders.map(|contender| contender.name),
        lines: lines.into(),
        remarks: Vec::new(),
    }
    .print();
}

/// Who keeps a copy of a file that was read inside.
fn files(rounds: usize, ways: &Ways) {
    let length: u64 = size(256, 64);
    let contenders = [&RUNC, &ways.cold];
    let mut lines = ["page cache of the host", "page cache of the guest"]
        .map(|name| (name.to_owned(), vec![Vec::new(); contenders.len()]));
    for _ in 0..rounds {
        for (at, contender) in contenders.into_iter().enumerate() {
            let mut keep = |line: usize, mib: f64| lines[line].1[at].push(mib);
            let container = contender.idle();
            forget(&container, length);
            let of_the_guest = || number_of(&container.exec(&["cat", "/proc/meminfo"]), "Cached:") as i64;
            let (inside, outside) = (of_the_guest(), of_the_host("Cached:") as i64);
            container.exec(&["sh", "-c", "cat /file >/dev/null"]);
            keep(0, (of_the_host("Cached:") as i64 - outside) as f64 / 1024.0);
            // Without a guest that is the same cache.
            if contender.name != RUNC.name {
                keep(1, (of_the_guest() - inside) as f64 / 1024.0);
            }
        }
    }
    let title = format!(
        "memory: a file of {length} MiB read inside, what caches hold more, medians of {rounds} rounds"
    );
    Grid {
        title,
        unit: "MiB",
        contenders: &contenders.map(|contender| contender.name),
        lines: lines.into(),
        remarks: vec!["The file is of the container's root filesystem, and in no cache before.".to_owned()],
    }
    .print();
}

/// Makes the file of which the host's page cache holds nothing.
fn forget(container: &Idle, mib: u64) {
    let mut file = File::create_new(container.bundle.rootfs().join("file")).expect("a file");
    let mut chunks = std::io::Read::take(std::io::repeat(0x5a), mib * MIB);
    std::io::copy(&mut chunks, &mut file).expect("there is room");
    file.sync_all().expect("it can be written");
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("a file");
}
