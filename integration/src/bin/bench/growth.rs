//! How cost grows: with the number of idle containers ([`crate::crowd`]), with a machine's memory, with its vcpus.

use crate::{
    contender::{Contender, RUNC, Ways},
    crowd::crowds,
    footprint::of_the_host,
    picture::Curves,
    table::{Grid, median},
};
use husk_integration::{
    bundle::{Bundle, Image},
    qemu::{self, Size},
};

/// All of it.
pub fn growth(rounds: usize, kernel: &str, initrd: &str) {
    let ways = Ways::new();
    crowds(rounds, &ways);
    let qemu = |size: Size| qemu::to_first_line(kernel, initrd, size).as_secs_f64();
    let boot = Boot { ways: &ways, rounds, qemu: &qemu };
    boot.memory();
    boot.vcpus();
}

/// Starts of machines of several sizes, by booting.
struct Boot<'a> {
    ways: &'a Ways,
    rounds: usize,
    qemu: &'a dyn Fn(Size) -> f64,
}

impl Boot<'_> {
    fn memory(&self) {
        let there = of_the_host("MemTotal:") / 1024;
        let sizes = [128, 1024, 8192].map(|mib| Size { memory_mib: mib, ..Size::USUAL });
        let (sizes, missing): (Vec<Size>, Vec<Size>) =
            sizes.into_iter().partition(|size| u64::from(size.memory_mib) < there);
        let missing: Vec<String> = missing.iter().map(|size| format!("{} MiB", size.memory_mib)).collect();
        let remark = (!missing.is_empty())
            .then(|| format!("Not measured: {}, because the host has {there} MiB.", missing.join(", ")));
        let at: Vec<f64> = sizes.iter().map(|size| f64::from(size.memory_mib) / 1024.0).collect();
        let names = sizes.iter().map(|size| format!("{} MiB", size.memory_mib)).collect();
        self.measure("boot: run true, by the machine's memory", "GiB of memory", &sizes, names).show(
            self.rounds,
            "boot-memory",
            &at,
            remark,
        );
    }

    fn vcpus(&self) {
        let there = std::thread::available_parallelism().map_or(1, usize::from);
        let sizes = [1, 4, 16].map(|vcpus| Size { vcpus, ..Size::USUAL });
        let (sizes, missing): (Vec<Size>, Vec<Size>) =
            sizes.into_iter().partition(|size| size.vcpus as usize <= there);
        let missing: Vec<String> = missing.iter().map(|size| size.vcpus.to_string()).collect();
        // They would take turns, and wait for each other: a figure about the host's scheduler.
        let remark = (!missing.is_empty()).then(|| {
            format!(
                "Not measured: {} vcpus, more than the host has processors ({there}).",
                missing.join(" and ")
            )
        });
        let at: Vec<f64> = sizes.iter().map(|size| f64::from(size.vcpus)).collect();
        let names = sizes.iter().map(|size| format!("vcpus: {}", size.vcpus)).collect();
        self.measure("boot: run true, by the machine's vcpus", "vcpus", &sizes, names).show(
            self.rounds,
            "boot-vcpus",
            &at,
            remark,
        );
    }

    fn measure<'a>(&self, title: &str, across: &'a str, sizes: &[Size], names: Vec<String>) -> Figures<'a> {
        let contenders: Vec<Contender> =
            sizes.iter().map(|size| self.ways.sized(size.memory_mib, size.vcpus)).collect();
        let bundle = || Bundle::new(Image::Busybox, &["true"]);
        let (ours, theirs) = (bundle(), bundle());
        let mut lines: Vec<(String, Vec<Vec<f64>>)> =
            names.into_iter().map(|name| (name, vec![Vec::new(); 3])).collect();
        for round in 0..=self.rounds {
            for ((size, contender), (_, samples)) in sizes.iter().zip(&contenders).zip(&mut lines) {
                let taken =
                    [RUNC.run(&theirs).as_secs_f64(), contender.run(&ours).as_secs_f64(), (self.qemu)(*size)];
                if round > 0 {
                    samples.iter_mut().zip(taken).for_each(|(samples, taken)| samples.push(taken));
                }
            }
        }
        let names = ["runc", "husk, cold", "QEMU microvm to the agent's first line"];
        Figures { title: title.to_owned(), unit: "seconds", across, names, lines }
    }
}

/// A table of it, and its picture.
pub struct Figures<'a> {
    /// What it is about.
    pub title: String,
    /// What the figures count.
    pub unit: &'a str,
    /// What they depend on.
    pub across: &'a str,
    /// Whose they are; the first is what the others are compared with.
    pub names: [&'a str; 3],
    /// The samples, a line for each point.
    pub lines: Vec<(String, Vec<Vec<f64>>)>,
}

impl Figures<'_> {
    /// Prints it and draws it. `at`: where each line is in the picture.
    pub fn show(self, rounds: usize, picture: &str, at: &[f64], remark: Option<String>) {
        let curve = |contender: usize| -> Vec<(f64, f64)> {
            let medians = self.lines.iter().map(|(_, samples)| median(&samples[contender]));
            at.iter().zip(medians).filter_map(|(at, median)| Some((*at, median?))).collect()
        };
        let curves: Vec<(&str, Vec<(f64, f64)>)> =
            self.names.iter().enumerate().map(|(number, name)| (*name, curve(number))).collect();
        let (title, unit, across) = (self.title.clone(), self.unit, self.across);
        Grid {
            title: format!("{title}, medians of {rounds} rounds"),
            unit,
            contenders: &self.names,
            lines: self.lines,
            remarks: remark.into_iter().collect(),
        }
        .print();
        Curves { title: &title, across, up: unit, curves }.draw(picture);
    }
}
