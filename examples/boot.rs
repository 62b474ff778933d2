//! Boots a guest with nothing but a kernel and an initrd, prints what its kernel says, and how long each step took.
//! For work on the machine itself; it is not a container.
//!
//! `boot KERNEL INITRD [MEMORY_MIB [VCPUS [KERNEL PARAMETERS...]]]`

use husk::machine::order::MachineConfig;
use husk::machine::timeline::Step;
use husk::machine::{Ended, Machine, Parts};
use std::process::ExitCode;

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

fn run() -> Result<Ended, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = |otherwise: &str| words.next().unwrap_or_else(|| otherwise.to_owned());
    let config = MachineConfig {
        kernel: Some(next("vmlinux").into()),
        initrd: Some(next("initrd").into()),
        memory_mib: next("256").parse()?,
        vcpus: next("1").parse()?,
        command_line: words.collect::<Vec<_>>().join(" "),
        boot_timeout_ms: 0,
    };
    let parts = Parts::find(&config)?;
    let machine = Machine::assemble(&config, &parts)?;
    let log = machine.kernel_log();
    let running = machine.run()?;
    let ended = running.wait();
    running.timeline().step("ended");
    println!("{}", log.tail(1000));
    for (step, at) in running.timeline().steps() {
        let name = match step {
            Step::Host(what) => what.to_owned(),
            Step::Guest(mark) => format!("guest's mark {mark}"),
        };
        println!("{:>10.3} ms  {name}", at.as_secs_f64() * 1e3);
    }
    println!("{} exits to a bus", running.exits());
    Ok(ended)
}
