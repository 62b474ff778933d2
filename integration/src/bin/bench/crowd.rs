//! How cost grows with the number of containers that are there and do nothing.

use crate::{
    contender::{Contender, Idle, RUNC, Ways},
    footprint::{of_the_host, pss},
    growth::Figures,
};
use husk_integration::{
    bundle::{Bundle, Image},
    scenario::size,
};
use std::{thread::sleep, time::Duration};

const WANTED: [usize; 4] = [1, 10, 50, 100];
/// What is measured: the picture's name, what it is, and what its figures count.
const KINDS: [(&str, &str, &str); 3] = [
    ("growth-start", "run true, beside so many idle containers of the same runtime", "seconds"),
    ("growth-exec", "exec true in the first of so many idle containers", "seconds"),
    ("growth-memory", "proportional set size of so many idle containers, together", "MiB"),
];

/// What one start, one command and all containers cost beside others.
pub fn crowds(rounds: usize, ways: &Ways) {
    let levels: &[usize] = size(&WANTED, &[1, 5, 10]);
    let mut why = "the machine is emulated (`HUSK_FULL=1` measures them)".to_owned();
    let mut crowds = [&RUNC, &ways.cold, &ways.copy].map(Crowd::new);
    let mut done = Vec::new();
    let mut parts: [Vec<(String, Vec<Vec<f64>>)>; 3] = Default::default();
    for &level in levels {
        if let Err(reason) = enough(&crowds, level) {
            why = reason;
            break;
        }
        crowds.iter_mut().for_each(|crowd| crowd.grow(level));
        // A guest gives back what its own start has freed.
        sleep(Duration::from_secs(3));
        let mut samples = [(); 3].map(|()| vec![Vec::new(); crowds.len()]);
        for round in 0..=rounds {
            for (at, crowd) in crowds.iter().enumerate() {
                let taken = crowd.sample();
                if round > 0 {
                    samples.iter_mut().zip(taken).for_each(|(samples, taken)| samples[at].push(taken));
                }
            }
        }
        let line = format!("{level} container{}", if level == 1 { "" } else { "s" });
        parts.iter_mut().zip(samples).for_each(|(part, samples)| part.push((line.clone(), samples)));
        done.push(level);
    }
    let names = crowds.each_ref().map(|crowd| crowd.contender.name);
    drop(crowds);
    let missing = WANTED.iter().filter(|level| !done.contains(level)).map(usize::to_string);
    let missing: Vec<String> = missing.collect();
    let remark = (!missing.is_empty())
        .then(|| format!("Not measured: {} containers, because {why}.", missing.join(", ")));
    let at: Vec<f64> = done.iter().map(|level| *level as f64).collect();
    for ((picture, what, unit), lines) in KINDS.into_iter().zip(parts) {
        let title = format!("growth: {what}");
        Figures { title, unit, across: "idle containers", names, lines }.show(
            rounds,
            picture,
            &at,
            remark.clone(),
        );
    }
}

/// Idle containers of one runtime.
struct Crowd<'a> {
    contender: &'a Contender,
    containers: Vec<Idle>,
    bundle: Bundle,
}

impl<'a> Crowd<'a> {
    fn new(contender: &'a Contender) -> Crowd<'a> {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        Crowd { contender, containers: Vec::new(), bundle }
    }

    fn grow(&mut self, level: usize) {
        let more = level - self.containers.len();
        self.containers.extend((0..more).map(|_| self.contender.idle()));
    }

    /// One of each of [`KINDS`].
    fn sample(&self) -> [f64; 3] {
        let start = self.contender.run(&self.bundle).as_secs_f64();
        let exec = self.containers[0].time(&["true"]).as_secs_f64();
        let held: u64 = self.containers.iter().map(|container| pss(container.pid)).sum();
        [start, exec, held as f64 / 1024.0]
    }
}

/// Whether the host has memory for that many of each; if not, what is missing.
fn enough(crowds: &[Crowd; 3], level: usize) -> Result<(), String> {
    let largest = |crowd: &Crowd| crowd.containers.iter().map(|container| pss(container.pid)).max();
    // Of those that nobody has seen yet, too much is believed.
    let each: u64 = crowds.iter().map(|crowd| largest(crowd).unwrap_or(64 << 10)).sum();
    let more = (level - crowds[0].containers.len()) as u64 * each;
    let there = of_the_host("MemAvailable:");
    // A tenth stays the host's.
    if more <= there / 10 * 9 {
        return Ok(());
    }
    Err(format!("{} MiB more were needed, and {} are there", more / 1024, there / 1024))
}
