//! What work with files costs, on a container's own root filesystem and on a bind-mounted volume: husk beside runc, whose
//! files are the host's, and beside a guest of QEMU's whose files virtiofsd serves.

use crate::{
    contender::{RUNC, Ways},
    picture::bars_by_name,
    table::{Grid, median},
    work::{Amount, GIVEN, LEFT, content},
};
use husk_integration::{
    bundle::{Bundle, Image},
    outside::Outside,
    virtiofsd,
};
use std::{fs, io, path::Path, process::Command};

const PLACES: [(&str, &str); 2] = [("/own", "the container's own root filesystem"), ("/volume", "a volume")];
const NAMES: [&str; 3] = ["runc", "husk", "QEMU microvm and virtiofsd"];

/// All of it.
pub fn files(rounds: usize, kernel: &str) {
    let amount = Amount::usual();
    let ways = Ways::new();
    let command = format!("/bench work {} {} {} >/result", amount.words(), PLACES[0].0, PLACES[1].0);
    let sets: Vec<Set> = NAMES.iter().map(|name| Set::new(name, &command, amount)).collect();
    // By step and contender, for each place.
    let empty = || vec![vec![Vec::new(); NAMES.len()]; amount.steps().len()];
    let mut samples = [empty(), empty()];
    // None is spare: programs and files are in the host's page cache before each.
    for _ in 0..rounds {
        for (at, set) in sets.iter().enumerate() {
            set.warm();
            match at {
                0 => drop(RUNC.run(&set.bundle)),
                1 => drop(ways.cold.run(&set.bundle)),
                _ => virtiofsd::run(kernel, &set.bundle.rootfs(), &set.volume.0, &command),
            }
            for (samples, taken) in samples.iter_mut().zip(set.result()) {
                samples.iter_mut().zip(taken).for_each(|(samples, taken)| samples[at].push(taken));
            }
        }
    }
    drop(sets);
    for (((_, place), samples), picture) in PLACES.into_iter().zip(samples).zip(["files-own", "files-volume"])
    {
        let lines: Vec<_> = amount.steps().into_iter().zip(samples).collect();
        show(place, picture, rounds, lines);
    }
}

/// Prints the figures of a place, and draws their ratios.
fn show(place: &str, picture: &str, rounds: usize, lines: Vec<(String, Vec<Vec<f64>>)>) {
    let ratios = lines.iter().filter_map(|(step, samples)| {
        let one = median(&samples[0]).filter(|one| *one > 0.0)?;
        let ratios = samples[1..].iter().filter_map(|samples| Some(median(samples)? / one));
        Some((step.clone(), ratios.collect()))
    });
    let ratios: Vec<(String, Vec<f64>)> = ratios.collect();
    let remark = "Each round is a new container, or a new guest. What is read is in the host's page cache, and in no guest's. \
         virtiofsd is Debian's, with the options that it has by itself. All times are taken inside.";
    Grid {
        title: format!("files: on {place}, medians of {rounds} rounds"),
        unit: "seconds",
        contenders: &NAMES,
        lines,
        remarks: vec![remark.to_owned()],
    }
    .print();
    let title = format!("Work with files on {place}: how many times as long as with runc");
    bars_by_name(picture, &title, &NAMES[1..], &ratios);
}

/// What one contender works on: its bundle and its volume.
struct Set {
    bundle: Bundle,
    volume: Outside,
}

impl Set {
    fn new(name: &str, command: &str, amount: Amount) -> Set {
        let volume = Outside::new(&format!("files-{}", name.split(' ').next().unwrap_or_default()));
        let mut bundle = Bundle::new(Image::Work, &["sh", "-ec", command]);
        volume.bound(&mut bundle, PLACES[1].0, &["rbind"]);
        let root = bundle.rootfs();
        for (place, _) in PLACES {
            fs::create_dir_all(root.join(&place[1..])).expect("a directory");
        }
        let this = std::env::current_exe().expect("it was started from a file");
        fs::copy(this, root.join("bench")).expect("it can be copied");
        let set = Set { bundle, volume };
        set.places().iter().for_each(|place| give(place, amount));
        set
    }

    fn places(&self) -> [std::path::PathBuf; 2] {
        [self.bundle.rootfs().join(&PLACES[0].0[1..]), self.volume.0.clone()]
    }

    /// Has the host's page cache hold all that is there.
    fn warm(&self) {
        for place in self.places() {
            for name in GIVEN.iter().chain(&["tree.tar"]) {
                let mut file = fs::File::open(place.join(name)).expect("it is there");
                io::copy(&mut file, &mut io::sink()).expect("it can be read");
            }
        }
    }

    /// What was measured inside: for each place, the seconds of each step.
    fn result(&self) -> Vec<Vec<f64>> {
        let text = fs::read_to_string(self.bundle.rootfs().join("result")).expect("it was written");
        let numbers = |line: &str| -> Vec<f64> {
            line.split(' ').map(|number| number.parse::<f64>().expect("a number") / 1e9).collect()
        };
        let places: Vec<Vec<f64>> = text.lines().map(numbers).collect();
        assert_eq!(places.len(), PLACES.len(), "the work was not done: {text:?}");
        // Nothing of a round is there in the next.
        fs::remove_file(self.bundle.rootfs().join("result")).expect("it is there");
        for path in self.places().iter().flat_map(|place| LEFT.map(|name| place.join(name))) {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.expect("it is there");
        }
        places
    }
}

/// Makes what is to be read and unpacked in a place.
fn give(place: &Path, amount: Amount) {
    for name in GIVEN {
        let mut file = fs::File::create(place.join(name)).expect("a file");
        let mut bytes = io::Read::take(io::repeat(0x5a), u64::from(amount.mebibytes) << 20);
        io::copy(&mut bytes, &mut file).expect("there is room");
        // Nothing is left to be written back while others are measured.
        file.sync_all().expect("it can be written");
    }
    let source = Outside::new("tree");
    for file in 0..amount.tree {
        let directory = source.0.join(format!("tree/{}/{}", file % 10, file / 10 % 20));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(file.to_string()), content(file)).expect("there is room");
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&source.0).arg("-cf").arg(place.join("tree.tar")).arg("tree");
    husk_integration::runtime::run(tar).ok();
}
