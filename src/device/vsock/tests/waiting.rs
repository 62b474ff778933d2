//! A caller's descriptor must never make the device wait, whatever kind of file it is and whatever others do to it.

use super::super::Endpoint;
use super::super::descriptor::{Descriptor, Moved, Shunt, Then};
use super::super::packet::SHUTDOWN_SEND;
use super::guest::*;
use crate::device::testing::PATIENCE;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use vm_memory::VolatileSlice;

/// Runs `attempt` elsewhere, and fails if it does not come back.
fn at_once<T: Send + 'static>(attempt: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(attempt()));
    wait.recv_timeout(PATIENCE).expect("it does not wait")
}

fn write(descriptor: OwnedFd, bytes: Vec<u8>) -> (Descriptor, Moved) {
    at_once(move || {
        let mut descriptor = Descriptor::new(descriptor);
        let moved = write_again(&mut descriptor, &bytes);
        (descriptor, moved)
    })
}

fn write_again(descriptor: &mut Descriptor, bytes: &[u8]) -> Moved {
    // In pieces, as guest buffers are.
    let mut copy = bytes.to_vec();
    let slices: Vec<VolatileSlice> = copy.chunks_mut(1000).map(VolatileSlice::from).collect();
    descriptor.write(&slices, &mut Shunt::default())
}

fn read(descriptor: OwnedFd, room: usize) -> (Vec<u8>, Then) {
    at_once(move || {
        let mut bytes = vec![0; room];
        let slices: Vec<VolatileSlice> = bytes.chunks_mut(1000).map(VolatileSlice::from).collect();
        let moved = Descriptor::new(descriptor).read(&slices, &mut Shunt::default());
        bytes.truncate(moved.bytes);
        (bytes, moved.then)
    })
}

fn flags(fd: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap())
}

fn fifo() -> (File, File) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    drop(both);
    (reader, writer)
}

fn terminal() -> (File, File) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut settings = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut settings);
    // The kernel's usual setting on output: a newline becomes two characters.
    settings.output_flags |= nix::sys::termios::OutputFlags::OPOST | nix::sys::termios::OutputFlags::ONLCR;
    nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &settings).unwrap();
    (pty.master.into(), pty.slave.into())
}

/// Every kind that can be full: a name, the reader's end, the writer's end.
fn pairs() -> Vec<(&'static str, OwnedFd, OwnedFd)> {
    let (pipe_reader, pipe_writer) = std::io::pipe().unwrap();
    let (fifo_reader, fifo_writer) = fifo();
    let (one, other) = UnixStream::pair().unwrap();
    let (master, slave) = terminal();
    vec![
        ("pipe", pipe_reader.into(), pipe_writer.into()),
        ("fifo", fifo_reader.into(), fifo_writer.into()),
        ("socket", one.into(), other.into()),
        ("terminal", master.into(), slave.into()),
    ]
}

#[test]
fn a_full_file_takes_what_fits_and_says_later() {
    for (name, reader, writer) in pairs() {
        let before = flags(&writer);
        let probe = writer.try_clone().unwrap();
        let bytes = pattern(1 << 20).into_iter().map(|byte| byte | 1 << 7).collect::<Vec<_>>();
        let (mut descriptor, moved) = write(writer, bytes.clone());
        assert_eq!(moved.then, Then::Later, "{name}");
        assert!((4096..1 << 20).contains(&moved.bytes), "{name} took {}", moved.bytes);
        // What is left of the last page may still take a little.
        let again = at_once(move || (0..1000).map(|_| write_again(&mut descriptor, &[1; 10])).last());
        assert_eq!(again, Some(Moved { bytes: 0, then: Then::Later }), "{name}");
        assert_eq!(flags(&probe), before, "{name}: others see the flags that they left");
        let mut got = vec![0; moved.bytes];
        File::from(reader).read_exact(&mut got).unwrap();
        assert!(got == bytes[..moved.bytes], "{name}: nothing is lost, doubled or changed");
    }
}

#[test]
fn an_empty_file_says_later_and_an_ended_one_says_so() {
    for (name, reader, writer) in pairs() {
        let before = flags(&reader);
        let copy = || reader.try_clone().unwrap();
        assert_eq!(read(copy(), 5000), (Vec::new(), Then::Later), "{name}");
        let mut writer = File::from(writer);
        writer.write_all(b"some bytes").unwrap();
        let (bytes, then) = read(copy(), 5000);
        assert_eq!((&bytes[..], then), (&b"some bytes"[..], Then::Later), "{name}");
        writer.write_all(b"last").unwrap();
        assert_eq!(read(copy(), 4), (b"last".to_vec(), Then::More), "{name}");
        drop(writer);
        assert_eq!(read(copy(), 5000), (Vec::new(), Then::Over), "{name}");
        assert_eq!(flags(&reader), before, "{name}");
    }
}

#[test]
fn a_file_whose_reader_left_says_so() {
    for (name, reader, writer) in pairs() {
        drop(reader);
        let (_, moved) = write(writer, vec![1; 100]);
        assert_eq!(moved, Moved { bytes: 0, then: Then::Over }, "{name}");
    }
}

#[test]
fn others_who_write_to_the_same_pipe_do_not_make_us_wait() {
    for (name, reader, writer) in pairs() {
        if name == "terminal" {
            // The documented gap.
            continue;
        }
        let mut rival = File::from(writer.try_clone().unwrap());
        let mut reader = File::from(reader);
        let rival = std::thread::spawn(move || while rival.write_all(&[b'r'; 700]).is_ok() {});
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        let won = Arc::new(AtomicBool::new(false));
        let has_won = won.clone();
        // Reads a page now and then, for which rival and we compete, and then nothing any more: who has begun a write
        // that waits will wait for ever.
        let reader = std::thread::spawn(move || {
            for round in 0..20_000 {
                reader.read_exact(&mut [0; 4096]).unwrap();
                std::thread::sleep(Duration::from_micros(100));
                if round >= 200 && has_won.load(Ordering::SeqCst) {
                    break;
                }
            }
            stop.store(true, Ordering::SeqCst);
            reader
        });
        let took = at_once(move || {
            let (mut descriptor, mut took, mut last) = (Descriptor::new(writer), 0, 0);
            while last < 50 {
                took += write_again(&mut descriptor, &[b'o'; 30_000]).bytes;
                won.store(took > 0, Ordering::SeqCst);
                last += u32::from(stopped.load(Ordering::SeqCst));
                std::thread::yield_now();
            }
            took
        });
        drop(reader.join().unwrap());
        rival.join().unwrap();
        assert!(took > 0, "{name}: sometimes we win");
    }
}

#[test]
fn a_terminal_that_was_opened_for_us_takes_large_writes() {
    let (mut master, slave) = terminal();
    fcntl(&slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (_, moved) = write(slave.into(), vec![b'\n'; 1 << 20]);
    assert_eq!(moved.then, Then::Later);
    let mut got = vec![0; 2 * moved.bytes];
    master.read_exact(&mut got).unwrap();
    assert!(got.chunks(2).all(|pair| pair == b"\r\n"));
}

/// The whole way: each kind as a container's stdout, whose reader comes and goes.
#[test]
fn output_of_every_kind_arrives_whole_through_a_slow_reader() {
    for (name, reader, writer) in pairs() {
        let mut guest = Guest::start(32);
        let endpoint = Endpoint { from_guest: Some(writer), to_guest: None };
        let (mut socket, stream) = guest.open(endpoint);
        let sent: Vec<u8> = pattern(700_000).into_iter().map(|byte| byte | 1 << 7).collect();
        let length = sent.len();
        let caller = std::thread::spawn(move || {
            let (mut reader, mut all) = (File::from(reader), vec![0; length]);
            for part in all.chunks_mut(50_000) {
                std::thread::sleep(Duration::from_millis(2));
                reader.read_exact(part).unwrap();
            }
            all
        });
        socket.write(&mut guest, &sent);
        assert!(caller.join().unwrap() == sent, "{name}");
        assert!(stream.wait_delivered(length as u64, Some(Instant::now() + PATIENCE)), "{name}");
    }
}

/// The whole way: each kind as a container's stdin.
#[test]
fn input_of_every_kind_arrives_whole() {
    for (name, reader, writer) in pairs() {
        let mut guest = Guest::start(32);
        let endpoint = Endpoint { from_guest: None, to_guest: Some(reader) };
        let (mut socket, _stream) = guest.open(endpoint);
        let sent: Vec<u8> = pattern(700_000).into_iter().map(|byte| byte | 1 << 7).collect();
        let copy = sent.clone();
        let caller = std::thread::spawn(move || {
            let mut writer = File::from(writer);
            for part in copy.chunks(90_000) {
                writer.write_all(part).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let received = socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
        caller.join().unwrap();
        assert!(received == sent, "{name}: {} of {} bytes", received.len(), sent.len());
    }
}
