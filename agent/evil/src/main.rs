//! The first process of a guest whose agent lies: a good one, as far as it goes, until the moment of its way. `evil=NUMBER` on the
//! kernel's command line says which ([`husk_evil_agent::WAYS`]); the kernel passes it on as a variable.

use husk_evil_agent::{Point, WAYS, Way};
use husk_protocol::{
    Answer, CONTROL_PORT, Call, Exited, FromAgent, ProcessKey, ProcessStatus, Ready, Request, VERSION, frame,
};
use nix::libc::{SIGKILL, VMADDR_CID_HOST};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

fn main() {
    let number = std::env::var("evil").ok().and_then(|number| number.parse::<usize>().ok());
    if let Some(way) = number.and_then(|number| WAYS.get(number)) {
        // The host has had enough, or it never was there: to a guest whose agent is evil, either is the same.
        let _ = lie(*way);
    }
    // A kernel without its first process would panic, and that would be the end of the machine.
    loop {
        std::thread::park();
    }
}

fn lie(way: Way) -> io::Result<()> {
    let called = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None)?;
    connect(called.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, CONTROL_PORT))?;
    let mut host = File::from(called);
    if way.at == Point::Greeting {
        way.act(&host, 0);
        // Whatever is asked goes nowhere.
        return io::copy(&mut host, &mut io::sink()).map(drop);
    }
    say(&host, &FromAgent::Ready(Ready { version: VERSION, uptime: 0 }))?;
    let mut first = ProcessKey(0);
    loop {
        let Request { id, call } = asked(&mut host)?;
        let point = match &call {
            Call::Create(_) => Some(Point::Create),
            Call::Start { .. } => Some(Point::Start),
            Call::Processes { .. } => Some(Point::Processes),
            Call::Signal { signal: SIGKILL, .. } => Some(Point::Kill),
            _ => None,
        };
        if point == Some(way.at) {
            way.act(&host, id);
            continue;
        }
        let answer = match call {
            Call::Create(container) => {
                first = container.process_key;
                Answer::Created { guest_pid: 2 }
            }
            Call::Processes { .. } => Answer::Processes(Vec::new()),
            Call::AttachInterfaces { .. } => Answer::Interfaces(Vec::new()),
            _ => Answer::Done,
        };
        say(&host, &FromAgent::Reply { id, outcome: Ok(answer) })?;
        match point {
            Some(Point::Start) if way.at == Point::Running => way.act(&host, id),
            Some(Point::Kill) => {
                let status = ProcessStatus::Signal(9);
                say(&host, &FromAgent::Exited(Exited { process: first, status, stdout: 0, stderr: 0 }))?;
            }
            _ => {}
        }
    }
}

fn say(mut host: &File, message: &FromAgent) -> io::Result<()> {
    host.write_all(&frame::encode(message).map_err(io::Error::other)?)
}

fn asked(host: &mut File) -> io::Result<Request> {
    let mut prefix = [0; 4];
    host.read_exact(&mut prefix)?;
    let mut message = vec![0; frame::length(prefix).map_err(io::Error::other)?];
    host.read_exact(&mut message)?;
    frame::decode(&message).map_err(io::Error::other)
}
