//! Streams: no byte lost, none buffered without a bound, and a stalled one stalls nothing else.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    running::Running,
    runtime::{Runtime, wait},
    scenario::{fresh_id, sh, size},
};
use std::{
    io::{Read, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

fn spawn(bundle: &Bundle, id: &str, stdin: Stdio) -> Child {
    Runtime::Husk
        .command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), id.as_ref()])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("husk can be run")
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
    text
}

#[test]
fn stdin_reaches_the_program_and_so_does_its_end() {
    let before = Census::take();
    {
        let bundle = Bundle::new(Image::Busybox, &["sh", "-c", "cat; echo end"]);
        let mut child = spawn(&bundle, &fresh_id(), Stdio::piped());
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"one\ntwo\n").expect("the program reads");
        drop(stdin);
        let mut stdout = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("it is text");
        assert_eq!((stdout.as_str(), said(&mut child).as_str()), ("one\ntwo\nend\n", ""));
        assert!(wait(&mut child, Duration::from_secs(20)).expect("it ends").success());
    }
    before.assert_unchanged();
}

#[test]
fn a_gibibyte_arrives_whole() {
    let bytes: u64 = size(1 << 30, 64 << 20);
    // A stream with structure, so that a lost or doubled piece shows.
    let bundle =
        Bundle::new(Image::Busybox, &["sh", "-c", &format!("yes 0123456789abcde | head -c {bytes}")]);
    let mut child = spawn(&bundle, &fresh_id(), Stdio::null());
    let mut stdout = child.stdout.take().expect("piped");
    let (mut total, mut buffer, started) = (0u64, vec![0; 1 << 20], Instant::now());
    loop {
        let length = stdout.read(&mut buffer).expect("the pipe can be read");
        if length == 0 {
            break;
        }
        for (index, byte) in buffer[..length].iter().enumerate() {
            let expected = b"0123456789abcde\n"[((total + index as u64) % 16) as usize];
            assert_eq!(*byte, expected, "byte {} is wrong", total + index as u64);
        }
        total += length as u64;
    }
    eprintln!("{bytes} bytes through stdout in {:?}", started.elapsed());
    assert_eq!(total, bytes, "{}", said(&mut child));
    assert!(wait(&mut child, Duration::from_secs(20)).expect("it ends").success());
}

#[test]
fn the_last_words_of_a_short_life_are_never_lost() {
    for number in 0..size(100, 10) {
        let output = sh(&format!("echo line {number}; echo last {number} >&2; exit {number}"));
        assert_eq!(
            (output.code, output.stdout, output.stderr),
            (number, format!("line {number}\n"), format!("last {number}\n"))
        );
    }
}

#[test]
fn a_writer_ends_when_its_reader_has_left() {
    let bundle = Bundle::new(Image::Busybox, &["yes"]);
    let mut child = spawn(&bundle, &fresh_id(), Stdio::null());
    let mut first = [0; 2];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("yes says y");
    assert_eq!(&first, b"y\n");
    drop(child.stdout.take());
    let status = wait(&mut child, Duration::from_secs(20)).expect("`yes | head -1` ends");
    // busybox's yes sees EPIPE and ends with 1, or SIGPIPE ends it.
    assert!(!status.success(), "{status:?}");
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_else() {
    let before = Census::take();
    {
        let bundle = Bundle::new(
            Image::Busybox,
            &["sh", "-c", "(while :; do date +%s >&2; sleep 1; done) & dd if=/dev/zero bs=64k count=16384"],
        );
        let mut container = Running::new(bundle, Stdio::piped(), Stdio::piped());
        let mut stderr = container.child.stderr.take().expect("piped");
        let mut beats = 0;
        let mut buffer = [0; 256];
        // Nobody reads stdout; stderr goes on all the same.
        while beats < 5 {
            let length = stderr.read(&mut buffer).expect("stderr can be read");
            assert_ne!(length, 0, "the container ended");
            beats += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
        }
        let memory = |pid: i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            let line = text.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS").to_owned();
            line.split_whitespace().nth(1).expect("a figure").parse::<u64>().expect("a number")
        };
        let (first, _) = (memory(container.pid), std::thread::sleep(Duration::from_secs(3)));
        let second = memory(container.pid);
        assert!(second < first + 4096, "memory grew from {first} to {second} KiB with a stalled reader");
        let started = Instant::now();
        Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
        assert_eq!(container.end(), 137);
        eprintln!("killed with a stalled reader in {:?}", started.elapsed());
    }
    before.assert_unchanged();
}
