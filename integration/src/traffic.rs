//! Traffic between two ends of a network: what `make bench` measures of it.
//!
//! Both ends are the benchmark's own program; in a container it is a copy of it (`bench peer ...`).
//! A connection begins with a byte that says what it is for: a stream that is counted, one that is sent (its length follows),
//! or requests that are answered.

use crate::scenario::size;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Where an end listens.
pub const PORT: u16 = 5201;
const STREAM: u8 = b's';
const BACK: u8 = b'b';
const REQUESTS: u8 = b'r';
const CHUNK: usize = 64 << 10;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// How long the stream is, in bytes.
    pub stream: u64,
    /// How many requests of one byte are asked.
    pub requests: u32,
}

impl Amount {
    /// As much as this machine can take.
    pub fn usual() -> Amount {
        Amount { stream: size(1 << 30, 16 << 20), requests: size(20_000, 300) }
    }
}

/// What that took.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The stream, until the other end's program has said that it has all of it.
    pub stream: Duration,
    /// One of the same length from the other end, until all of it is here.
    pub back: Duration,
    /// The requests, one after the other, each answered by one byte.
    pub requests: Duration,
}

/// Listens on all addresses and serves whoever comes, each in a thread. Ends with an error.
pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("a connection ended with {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == STREAM {
        let count = io::copy(&mut stream, &mut io::sink())?;
        return stream.write_all(&count.to_le_bytes());
    }
    if kind[0] == BACK {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        return send(&mut stream, u64::from_le_bytes(length));
    }
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn send(stream: &mut TcpStream, mut left: u64) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    while left > 0 {
        let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Measures against the end at `address`.
pub fn ask(address: &str, amount: Amount) -> io::Result<Taken> {
    let connect = |kind: u8| {
        let mut stream = TcpStream::connect((address, PORT))?;
        stream.set_nodelay(true)?;
        stream.write_all(&[kind])?;
        Ok::<_, io::Error>(stream)
    };
    let mut stream = connect(STREAM)?;
    let begun = Instant::now();
    send(&mut stream, amount.stream)?;
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let taken = begun.elapsed();
    if u64::from_le_bytes(count) != amount.stream {
        return Err(io::Error::other("the other end has counted another number of bytes"));
    }

    let mut returning = connect(BACK)?;
    let begun = Instant::now();
    returning.write_all(&amount.stream.to_le_bytes())?;
    if io::copy(&mut returning, &mut io::sink())? != amount.stream {
        return Err(io::Error::other("the other end has sent another number of bytes"));
    }
    let back = begun.elapsed();

    let mut asking = connect(REQUESTS)?;
    let begun = Instant::now();
    let mut byte = [0];
    for _ in 0..amount.requests {
        asking.write_all(&byte)?;
        asking.read_exact(&mut byte)?;
    }
    Ok(Taken { stream: taken, back, requests: begun.elapsed() })
}

/// `bench peer ...`: an end inside a container. What it has measured is printed as three numbers of nanoseconds.
pub fn peer(words: impl Iterator<Item = String>) -> io::Result<()> {
    let usage = || io::Error::other("usage: bench peer serve | bench peer ask ADDRESS BYTES REQUESTS");
    let words: Vec<String> = words.collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        ["ask", address, bytes, requests] => {
            let (Ok(stream), Ok(requests)) = (bytes.parse(), requests.parse()) else { return Err(usage()) };
            let taken = ask(address, Amount { stream, requests })?;
            println!("{} {} {}", taken.stream.as_nanos(), taken.back.as_nanos(), taken.requests.as_nanos());
            Ok(())
        }
        _ => Err(usage()),
    }
}

impl Taken {
    /// Reads what [`peer`] printed.
    pub fn read(text: &str) -> Option<Taken> {
        let mut numbers = text.split_whitespace().map(|word| word.parse().map(Duration::from_nanos));
        let mut next = || numbers.next()?.ok();
        Some(Taken { stream: next()?, back: next()?, requests: next()? })
    }
}
