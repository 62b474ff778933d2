//! What an idle container takes of the host's memory.

use husk_integration::{
    bundle::{Bundle, Image},
    running::Running,
    runtime::Runtime,
};
use std::{process::Stdio, time::Duration};

/// Proportional set size of the machine process of an idle container, and what of it is the guest's memory.
pub fn memory() {
    let mut container =
        Running::new(Bundle::new(Image::Busybox, &["sleep", "100000"]), Stdio::null(), Stdio::inherit());
    std::thread::sleep(Duration::from_secs(3));
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", container.pid)).expect("root may");
    let mut total = 0u64;
    // Writable anonymous mappings that follow each other without a gap: their size, and what of them is there.
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let (mut end, mut in_run) = (0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            let (from, to) = first.split_once('-').expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("hex");
            let words: Vec<_> = words.collect();
            let before = in_run && end == number(from);
            in_run = words[0] == "rw-p" && words.len() == 4;
            if in_run && !before {
                runs.push((0, 0));
            }
            if let Some(run) = runs.last_mut().filter(|_| in_run) {
                run.0 += number(to) - number(from);
            }
            end = number(to);
        } else if first == "Pss:" {
            let size: u64 = words.next().expect("a figure").parse().expect("a number");
            total += size;
            if let Some(run) = runs.last_mut().filter(|_| in_run) {
                run.1 += size;
            }
        }
    }
    // Nothing but a guest's memory is that large.
    let guest: u64 = runs.iter().filter(|(size, _)| *size >= 64 << 20).map(|(_, there)| there).sum();
    println!("## memory of an idle busybox container, PSS\n\n| part | KiB |\n|---|---|");
    println!(
        "| machine process in all | {total} |\n| of it the guest's memory, kernel included | {guest} |\n| outside the guest | {} |\n",
        total - guest
    );
    Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
    container.end();
}
