//! Work with files, and how long it takes: the same in a container of any runtime and in a guest of QEMU's. It runs inside
//! (`bench work ...`), and prints a line for each thing that it did.

use husk_integration::scenario::size;
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    io::{self, Error},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Files that are there before: to be read from the first byte to the last, at random, and through a mapping.
pub const GIVEN: [&str; 3] = ["read", "random", "mapped"];

/// What is there afterwards; the host removes it.
pub const LEFT: [&str; 3] = ["written", "repository", "node_modules"];

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// The length of each file that is read or written, in MiB.
    pub mebibytes: u32,
    /// How many blocks are read and written at random.
    pub blocks: u32,
    /// Files in the archive.
    pub tree: u32,
    /// Files in the repository.
    pub repository: u32,
    /// Packages that are installed, of eight files each.
    pub packages: u32,
}

impl Amount {
    /// As much as this machine can take: a request for a file takes milliseconds where it is emulated.
    pub fn usual() -> Amount {
        let full =
            Amount { mebibytes: 256, blocks: 50_000, tree: 20_000, repository: 10_000, packages: 2_000 };
        let emulated = Amount { mebibytes: 8, blocks: 200, tree: 60, repository: 30, packages: 5 };
        size(full, emulated)
    }

    /// For the command line of the program inside.
    pub fn words(self) -> String {
        let Amount { mebibytes, blocks, tree, repository, packages } = self;
        format!("{mebibytes} {blocks} {tree} {repository} {packages}")
    }

    fn read(words: &mut impl Iterator<Item = String>) -> Option<Amount> {
        let mut next = || words.next()?.parse().ok();
        Some(Amount {
            mebibytes: next()?,
            blocks: next()?,
            tree: next()?,
            repository: next()?,
            packages: next()?,
        })
    }

    /// What is done, in this order.
    pub fn steps(self) -> [String; 10] {
        let Amount { mebibytes, blocks, tree, repository, packages } = self;
        [
            format!("read {mebibytes} MiB in order, 1 MiB at a time"),
            format!("write {mebibytes} MiB in order, 1 MiB at a time, and sync"),
            format!("read {blocks} blocks of 4 KiB at random"),
            format!("write {blocks} blocks of 4 KiB at random, and sync"),
            format!("read {mebibytes} MiB through a mapping"),
            format!("untar {tree} files"),
            format!("find in {tree} files"),
            format!("git status on {repository} files"),
            format!("install {packages} packages of 8 small files"),
            format!("rm -rf of {tree} files"),
        ]
    }
}

/// `bench work AMOUNT... PLACE...`: prints nanoseconds, a line for each place.
pub fn work(mut words: impl Iterator<Item = String>) -> io::Result<()> {
    let amount = Amount::read(&mut words).ok_or_else(|| Error::other("usage: bench work AMOUNT PLACE..."))?;
    let places: Vec<String> = words.collect();
    // Programs are in the page caches before anything is measured.
    for program in ["tar", "find", "git", "rm"] {
        run(program, &["--version"])?;
    }
    let read_and_written = fio(amount, &places)?;
    for (place, blocks) in places.iter().zip(read_and_written.chunks(JOBS)) {
        let files = Work { place: Path::new(place), amount }.all()?;
        let numbers: Vec<String> =
            blocks.iter().chain(&files).map(|taken| taken.as_nanos().to_string()).collect();
        println!("{}", numbers.join(" "));
    }
    Ok(())
}

/// How many of the steps are fio's.
const JOBS: usize = 5;

/// What fio says that each of its jobs took, place by place. One program does them all, one after the other: it looks at the processor's
/// clock for long when it starts. What is in a cache stays there: that of the guest has nothing of the files yet, that of the
/// host has all.
fn fio(amount: Amount, places: &[String]) -> io::Result<Vec<Duration>> {
    let [read, random, mapped] = GIVEN;
    let whole = format!("--size={}m", amount.mebibytes);
    let some = format!("--number_ios={}", amount.blocks);
    let jobs: [(&str, &[&str]); JOBS] = [
        (read, &["--rw=read", "--bs=1m"]),
        ("written", &["--rw=write", "--bs=1m", "--end_fsync=1"]),
        (random, &["--rw=randread", "--bs=4k", &some]),
        (random, &["--rw=randwrite", "--bs=4k", "--end_fsync=1", &some]),
        (mapped, &["--rw=read", "--bs=1m", "--ioengine=mmap"]),
    ];
    let mut words: Vec<String> = vec!["--output-format=json".to_owned()];
    for place in places {
        for (file, options) in jobs {
            let file = format!("--filename={}", Path::new(place).join(file).display());
            let usual = ["--stonewall", "--ioengine=psync", "--invalidate=0", "--fallocate=none", &whole];
            let job = ["--name=job", &file].into_iter().chain(usual).chain(options.iter().copied());
            words.extend(job.map(str::to_owned));
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = run("fio", &words)?;
    // Warnings come before it.
    let said: Value = serde_json::from_str(said.find('{').map_or("", |at| &said[at..]))?;
    let done = said["jobs"].as_array().cloned().unwrap_or_default();
    if done.len() != places.len() * JOBS {
        return Err(Error::other(format!("fio has done {} jobs", done.len())));
    }
    // A read took what its calls took, which fio knows to the nanosecond; a write, what the whole job took with its sync, which it
    // knows to the millisecond.
    let taken = |job: &Value| {
        let read = &job["read"];
        let calls = read["lat_ns"]["mean"].as_f64().zip(read["total_ios"].as_f64());
        let calls = calls.map_or(0.0, |(mean, count)| mean * count);
        Duration::from_nanos(calls as u64)
            + Duration::from_millis(job["write"]["runtime"].as_u64().unwrap_or(0))
    };
    Ok(done.iter().map(taken).collect())
}

struct Work<'a> {
    place: &'a Path,
    amount: Amount,
}

impl Work<'_> {
    fn all(&self) -> io::Result<[Duration; 5]> {
        Ok([
            self.timed("tar", &["-xf", "tree.tar"])?,
            self.timed("find", &["tree", "-size", "+1"])?,
            self.git_status()?,
            self.install()?,
            self.timed("rm", &["-rf", "tree"])?,
        ])
    }

    /// How long a program takes, which works in the place.
    fn timed(&self, program: &str, words: &[&str]) -> io::Result<Duration> {
        let begun = Instant::now();
        self.run(program, words)?;
        Ok(begun.elapsed())
    }

    fn run(&self, program: &str, words: &[impl AsRef<OsStr>]) -> io::Result<String> {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.place);
        said(command)
    }

    /// The second one: the first finds out what has changed since the files were added.
    fn git_status(&self) -> io::Result<Duration> {
        let repository = self.place.join("repository");
        for file in 0..self.amount.repository {
            let directory = repository.join(format!("{}", file % 100));
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(file.to_string()), content(file))?;
        }
        let git = |words: &[&str]| {
            let named = ["-c", "user.name=n", "-c", "user.email=e", "-C", "repository"];
            let words: Vec<&str> = named.iter().chain(words).copied().collect();
            self.run("git", &words)
        };
        git(&["init", "-q", "--template="])?;
        git(&["add", "."])?;
        git(&["commit", "-q", "-m", "one"])?;
        git(&["status", "--porcelain"])?;
        let begun = Instant::now();
        let changed = git(&["status", "--porcelain"])?;
        let taken = begun.elapsed();
        if changed.is_empty() {
            Ok(taken)
        } else {
            Err(Error::other(format!("git sees a change: {changed}")))
        }
    }

    /// As npm does: each package is unpacked beside its place and then moved there, its program gets a name in `.bin`.
    fn install(&self) -> io::Result<Duration> {
        let begun = Instant::now();
        let modules = self.place.join("node_modules");
        fs::create_dir_all(modules.join(".bin"))?;
        for package in 0..self.amount.packages {
            let name = format!("package-{package}");
            let unpacked = modules.join(format!(".{name}-new"));
            fs::create_dir_all(unpacked.join("lib"))?;
            for file in 0..8 {
                let path = unpacked.join(if file < 4 { "." } else { "lib" }).join(format!("{file}.js"));
                fs::write(&path, content(package * 8 + file))?;
            }
            fs::set_permissions(unpacked.join("0.js"), PermissionsExt::from_mode(0o755))?;
            fs::rename(&unpacked, modules.join(&name))?;
            symlink(format!("../{name}/0.js"), modules.join(".bin").join(&name))?;
        }
        Ok(begun.elapsed())
    }
}

/// What a source file holds: up to 8 KiB, each of another length.
pub fn content(number: u32) -> Vec<u8> {
    format!("line {number}\n").repeat((number as usize * 37) % 600 + 1).into_bytes()
}

fn run(program: &str, words: &[&str]) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(words);
    said(command)
}

/// What a program printed, which must not fail.
fn said(mut command: Command) -> io::Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::other(format!("{command:?}: {}: {error}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
