//! Boots a guest with nothing but a kernel and an initrd, prints what its kernel says, and how long each step took.
//! For work on the machine itself; it is not a container.
//!
//! `boot KERNEL INITRD [MEMORY_MIB [VCPUS [ROOT [KERNEL PARAMETERS...]]]]`
//!
//! A KERNEL or INITRD of `-` is the one in this program's own file. ROOT is a directory that the guest finds as `0` on the virtio-fs device `root`. With it, the machine is in its jail,
//! and the guest is paused and resumed a few times after its first words.

use husk::machine::order::{AccessTimes, Export, ExportDevice, MachineConfig};
use husk::machine::timeline::{Step, Timeline};
use husk::machine::{Ended, Jail, Machine, Parts, Running};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    match run() {
        Ok(Ended::Reset) => ExitCode::SUCCESS,
        Ok(ended) => {
            eprintln!("{ended}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{}", husk::error::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Ended, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = |otherwise: &str| words.next().unwrap_or_else(|| otherwise.to_owned());
    let mut config = MachineConfig {
        kernel: Some(next("-").into()),
        initrd: Some(next("-").into()),
        memory_mib: next("256").parse()?,
        vcpus: next("1").parse()?,
        command_line: String::new(),
        boot_timeout_ms: 0,
        templates: None,
        // It stays as it is.
        most_memory_mib: 0,
        headroom_mib: 0,
        system_calls: Default::default(),
    };
    let root = next("");
    let embedded = |path: &PathBuf| path.as_os_str() == "-";
    config.kernel.take_if(|path| embedded(path));
    config.initrd.take_if(|path| embedded(path));
    config.command_line = words.collect::<Vec<_>>().join(" ");
    let parts = Parts::find(&config)?;
    let machine;
    if root.is_empty() {
        machine = Machine::assemble(&config, &parts)?;
    } else {
        let mut jail = Jail::build()?;
        machine = Machine::assemble(&config, &parts)?;
        let export = Export {
            device: ExportDevice::Root,
            name: "0".to_owned(),
            source: root.clone().into(),
            read_only: false,
            recursive: false,
            access_times: AccessTimes::default(),
            all_access_times: AccessTimes::default(),
        };
        jail.attach_all(&[export], &machine.root_exports(), &machine.share_exports())?;
        machine.timeline().step("root attached");
        jail.enter()?;
        machine.timeline().step("jail entered");
    }
    let log = machine.kernel_log();
    let running = machine.run()?;
    log.wait(0, Instant::now() + Duration::from_secs(60));
    running.timeline().step("first words of the kernel");
    if !root.is_empty() {
        pause_a_few_times(&running);
    }
    let ended = running.wait();
    running.timeline().step("ended");
    println!("{}", log.tail(1000));
    print(running.timeline());
    println!("{} exits to a bus", running.exits());
    Ok(ended)
}

fn pause_a_few_times(running: &Running) {
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        running.pause();
        running.timeline().step("paused");
        let exits = running.exits();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(running.exits(), exits, "a paused guest must not run");
        running.timeline().step("resumed");
        running.resume();
    }
}

fn print(timeline: &Timeline) {
    for (step, at) in timeline.steps() {
        let name = match step {
            Step::Host(what) => what.to_owned(),
            Step::Guest(mark) => format!("guest's mark {mark}"),
        };
        println!("{:>10.3} ms  {name}", at.as_secs_f64() * 1e3);
    }
}
