//! What of the host's memory processes hold.

use std::fs;

/// Proportional set size of a process and of those below it, in KiB.
pub fn pss(pid: i32) -> u64 {
    let own =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_or(0, |text| number_of(&text, "Pss:"));
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<i32> =
        children.flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    own + children.into_iter().map(pss).sum::<u64>()
}

/// What of a machine process's proportional set is its guest's memory, in KiB.
pub fn of_the_guest(pid: i32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("root may");
    // Private writable mappings (of nothing, or of a template) that follow each other without a gap: their size, and what of them
    // is there.
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let (mut end, mut in_run) = (0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            let (from, to) = first.split_once('-').expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("hex");
            let before = in_run && end == number(from);
            in_run = words.next() == Some("rw-p");
            if in_run && !before {
                runs.push((0, 0));
            }
            if let Some(run) = runs.last_mut().filter(|_| in_run) {
                run.0 += number(to) - number(from);
            }
            end = number(to);
        } else if first == "Pss:"
            && let Some(run) = runs.last_mut().filter(|_| in_run)
        {
            run.1 += words.next().expect("a figure").parse::<u64>().expect("a number");
        }
    }
    // Nothing but a guest's memory is that large.
    runs.iter().filter(|(size, _)| *size >= 64 << 20).map(|(_, there)| there).sum()
}

/// What the control group of a process holds, in MiB.
pub fn of_the_group(pid: i32) -> f64 {
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let group = group.trim().strip_prefix("0::").expect("cgroup v2");
    let bytes = fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.current")).expect("it is limited");
    bytes.trim().parse::<f64>().expect("a number") / f64::from(1 << 20)
}

/// A line of this host's memory, in KiB.
pub fn of_the_host(line: &str) -> u64 {
    number_of(&fs::read_to_string("/proc/meminfo").expect("proc is mounted"), line)
}

/// The number behind a word that begins a line.
pub fn number_of(text: &str, word: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(word)).expect("a line says it");
    rest.split_whitespace().next().expect("a figure").parse().expect("a number")
}
