//! What a start costs, whole.

use crate::{
    contender::{CRUN, RUNC, Ways},
    table::table,
};
use husk_integration::{
    bundle::{Bundle, Image},
    qemu::{self, Size},
};

/// `run true`, whole: create, start, exit, delete. And QEMU to the agent's first line, which is not even a container.
pub fn runs(rounds: usize, kernel: &str, initrd: &str) {
    let ways = Ways::new();
    let contenders = [&ways.cold, &ways.copy, &RUNC, &CRUN];
    let bundles = contenders.map(|_| Bundle::new(Image::Busybox, &["true"]));
    let mut samples = vec![Vec::new(); contenders.len() + 1];
    // The first of each warms the page cache and is not counted.
    for round in 0..=rounds {
        let taken = contenders.iter().zip(&bundles).map(|(contender, bundle)| contender.run(bundle));
        let taken: Vec<_> = taken.chain([qemu::to_first_line(kernel, initrd, Size::USUAL)]).collect();
        if round > 0 {
            samples.iter_mut().zip(taken).for_each(|(samples, taken)| samples.push(taken));
        }
    }
    let names = [
        "husk run true, cold",
        "husk run true, from a template",
        "runc run true",
        "crun run true",
        "QEMU microvm to the agent's first line",
    ];
    table("start", &names, &mut samples, 2);
}
