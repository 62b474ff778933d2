//! `make bench`: husk beside runc, crun and QEMU, measured in one run.
//!
//! Everything is measured in rounds: one sample of each contender a round, so that a slow moment of the machine hits all
//! alike. Medians are printed with their ratio to runc's. Absolute times mean little where the machine is emulated.
//!
//! Arguments: `bench KERNEL INITRD [ROUNDS [PART]]`; the environment is as for the tests, and pictures are drawn to the directory
//! that `HUSK_PICTURES` names. Parts: start, exec, network, memory, files, streams, growth.

mod contender;
mod crowd;
mod exec;
mod files;
mod footprint;
mod growth;
mod memory;
mod network;
mod picture;
mod start;
mod streams;
mod table;
mod timeline;
mod work;

use husk_integration::traffic;

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    // What runs inside a container is a copy of this program.
    let inside = match args.peek().map(String::as_str) {
        Some("peer") => Some(traffic::peer(args.by_ref().skip(1))),
        Some("work") => Some(work::work(args.by_ref().skip(1))),
        Some("pour") => Some(streams::pour(args.nth(1))),
        _ => None,
    };
    if let Some(done) = inside {
        if let Err(error) = done {
            eprintln!("bench: {error}");
            std::process::exit(1);
        }
        return;
    }
    let (Some(kernel), Some(initrd)) = (args.next(), args.next()) else {
        eprintln!("usage: bench KERNEL INITRD [ROUNDS [PART]]");
        std::process::exit(2);
    };
    let rounds: usize = args.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    // Of what takes long.
    let few = rounds / 3 + 1;
    println!("medians of {rounds} rounds, one sample of each a round\n");
    let part = args.next();
    let wanted = |name| part.as_deref().is_none_or(|part| part == name);
    if wanted("start") {
        start::runs(rounds, &kernel, &initrd);
        timeline::timeline();
    }
    if wanted("exec") {
        exec::execs(rounds);
    }
    if wanted("network") {
        network::network(rounds, &kernel);
    }
    if wanted("streams") {
        streams::streams(rounds);
    }
    if wanted("files") {
        files::files(few, &kernel);
    }
    if wanted("memory") {
        memory::memory(few);
    }
    if wanted("growth") {
        growth::growth(few, &kernel, &initrd);
    }
}
