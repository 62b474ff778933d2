//! The same again and again: nothing is left, and nothing grows. `make soak` does it in full.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    runtime::Runtime,
    scenario::size,
    template::Templates,
};
use std::fs;

#[test]
fn containers_come_and_go_and_the_host_is_what_it_was() {
    let cycles = size(1000, 10);
    let before = Census::take();
    {
        let templates = Templates::new("soak");
        templates.call("create").ok();
        let mut growth = Growth::default();
        for cycle in 0..cycles {
            // One that ends by itself, and one that is made to; with a wait, a command inside, or neither.
            let script = if cycle % 2 == 0 { "exit 3" } else { "exec sleep 1000" };
            let bundle = Bundle::new(Image::Busybox, &["sh", "-c", script]);
            let container = Created::configured(bundle, &templates.config());
            container.call("start", &[]).ok();
            match cycle % 4 {
                0 => container.wait_for("stopped"),
                1 => assert_eq!(container.sh("exit 5").code, 5),
                _ => {}
            }
            drop(container);
            growth.note(cycle, cycles, kernel_kib());
        }
        growth.assert_below("KiB of the host's kernel", 16 << 10);
    }
    before.assert_unchanged();
}

#[test]
fn a_machine_is_after_many_commands_what_it_was_after_a_few() {
    let commands = size(1000, 40);
    let before = Census::take();
    {
        let container = Created::new(Runtime::Husk, Bundle::new(Image::Busybox, &["sleep", "100000"]));
        container.call("start", &[]).ok();
        // A machine that lives for two seconds is given a balloon, which has descriptors and a thread of its own.
        let balloon = "for try in $(seq 300); do grep -q 0x0005 /sys/bus/virtio/devices/*/device && exit; sleep 0.1; done; exit 1";
        assert_eq!(container.sh(balloon).code, 0, "no balloon comes");
        let pid = container.pid();
        let count = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).map_or(0, Iterator::count) as u64;
        let (mut memory, mut inside) = (Growth::default(), Growth::default());
        let (mut descriptors, mut threads) = (Growth::default(), Growth::default());
        for command in 0..commands {
            let output = container.sh("grep ^MemAvailable: /proc/meminfo; ls / | wc -l; exit 9");
            assert_eq!(output.code, 9, "{output:?}");
            memory.note(command, commands, own_kib(pid));
            // What can be had no more.
            let free: u64 =
                output.stdout.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("KiB");
            inside.note(command, commands, u64::MAX - free);
            descriptors.note(command, commands, count("fd"));
            threads.note(command, commands, count("task"));
        }
        descriptors.assert_below("descriptors of the machine process", 1);
        threads.assert_below("threads of the machine process", 1);
        memory.assert_below("KiB of the machine process beside its guest", 1 << 10);
        inside.assert_below("KiB in use inside", 4 << 10);
    }
    before.assert_unchanged();
}

/// A quantity after a fifth of all rounds, when whatever is made once has been made, and after the last.
#[derive(Debug, Default)]
struct Growth {
    early: u64,
    late: u64,
}

impl Growth {
    fn note(&mut self, round: u32, rounds: u32, now: u64) {
        if round == rounds / 5 {
            self.early = now;
        }
        self.late = now;
    }

    #[track_caller]
    fn assert_below(&self, what: &str, limit: u64) {
        let grown = self.late.saturating_sub(self.early);
        eprintln!("{grown} more {what}");
        assert!(grown < limit, "{grown} more {what}, of {limit} that may be");
    }
}

/// What the kernel has taken for itself and cannot give back at will.
fn kernel_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("procfs");
    let own = |line: &&str| {
        ["SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:"].iter().any(|name| line.starts_with(name))
    };
    text.lines().filter(own).map(kib).sum()
}

/// The machine process's memory that is its own and not its guest's, whose mappings are the large ones.
fn own_kib(pid: i32) -> u64 {
    const OF_A_GUEST: u64 = 32 << 10;
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the machine is there");
    let (mut own, mut size) = (0, 0);
    for line in text.lines() {
        if line.starts_with("Size:") {
            size = kib(line);
        } else if line.starts_with("Private_Dirty:") && size < OF_A_GUEST {
            own += kib(line);
        }
    }
    own
}

/// `Name:   17 kB`
fn kib(line: &str) -> u64 {
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of KiB")
}
