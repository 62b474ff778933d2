//! Agents that lie: what each says instead of the truth, and when. They are played on the host's side of a socket by husk's own
//! tests, and as the first process of a real guest by the program of this crate.

use husk_protocol::{
    Answer, ContainerKey, Exited, Failure, FailureKind, FromAgent, GuestProcess, ProcessKey, ProcessStatus,
    Ready, VERSION, frame,
};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// When it stops being a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Instead of its greeting.
    Greeting,
    /// Instead of making the container.
    Create,
    /// Instead of starting it.
    Start,
    /// Once it runs.
    Running,
    /// Instead of listing its processes.
    Processes,
    /// Instead of killing it.
    Kill,
}

/// A way to lie.
#[derive(Clone, Copy)]
pub struct Way {
    /// What it does.
    pub what: &'static str,
    /// When. It answers the question that has come then.
    pub at: Point,
    act: fn(&Liar<'_>, u32),
}

impl Way {
    /// Does it, to the host behind this socket. After that nothing is to be said that is not said here.
    pub fn act(&self, host: &File, question: u32) {
        (self.act)(&Liar(host), question);
    }
}

/// The agent's socket, in evil hands.
struct Liar<'a>(&'a File);

impl Liar<'_> {
    fn raw(&self, bytes: &[u8]) {
        // The other end may have had enough.
        let _ = (&mut &*self.0).write_all(bytes);
    }

    fn say(&self, message: &FromAgent) {
        self.raw(&frame::encode(message).unwrap_or_default());
    }

    fn answer(&self, id: u32, answer: Answer) {
        self.say(&FromAgent::Reply { id, outcome: Ok(answer) });
    }

    fn greet(&self) {
        self.say(&FromAgent::Ready(Ready { version: VERSION, uptime: 0 }));
    }

    fn exit(&self, process: u32, status: ProcessStatus, stdout: u64) {
        self.say(&FromAgent::Exited(Exited {
            process: ProcessKey(process),
            status,
            stdout,
            stderr: u64::MAX,
        }));
    }

    fn leave(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

const MADE: Answer = Answer::Created { guest_pid: -1 };
const MANY: u32 = 100_000;

const fn way(what: &'static str, at: Point, act: fn(&Liar<'_>, u32)) -> Way {
    Way { what, at, act }
}

/// All of them.
pub const WAYS: &[Way] = &[
    way("never greets", Point::Greeting, |_, _| {}),
    way("sends what is no message", Point::Greeting, |liar, _| {
        liar.raw(&[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
    }),
    way("announces 4 GiB", Point::Greeting, |liar, _| liar.raw(&[0xff; 64])),
    way("sends empty messages without end", Point::Greeting, |liar, _| liar.raw(&[0; 1 << 20])),
    way("is of another version", Point::Greeting, |liar, _| {
        liar.say(&FromAgent::Ready(Ready { version: u32::MAX, uptime: u64::MAX }));
    }),
    way("greets twice", Point::Greeting, |liar, _| {
        liar.greet();
        liar.greet();
    }),
    way("answers before it greets", Point::Greeting, |liar, _| liar.answer(0, Answer::Done)),
    way("leaves at once", Point::Greeting, |liar, _| liar.leave()),
    way("sends half a message", Point::Create, |liar, _| liar.raw(&[100, 0, 0, 0, 1, 2, 3])),
    way("sends half a message and leaves", Point::Create, |liar, _| {
        liar.raw(&[100, 0, 0, 0, 1, 2, 3]);
        liar.leave();
    }),
    way("answers something else", Point::Create, |liar, id| liar.answer(id, Answer::Interfaces(vec![]))),
    way("answers another question", Point::Create, |liar, id| liar.answer(id.wrapping_add(7), MADE)),
    way("answers twice", Point::Create, |liar, id| {
        liar.answer(id, MADE);
        liar.answer(id, Answer::Done);
    }),
    way("fails with a book of control characters", Point::Create, |liar, id| {
        let message = "\x1b[2J\r\n\0".repeat(20_000);
        liar.say(&FromAgent::Reply { id, outcome: Err(Failure { kind: FailureKind::NotFound, message }) });
    }),
    way("never makes it", Point::Create, |_, _| {}),
    way("says that it has ended before it was", Point::Create, |liar, id| {
        liar.exit(0, ProcessStatus::Code(0), 0);
        liar.answer(id, MADE);
    }),
    way("never starts it", Point::Start, |_, _| {}),
    way("lists processes instead of starting it", Point::Start, |liar, id| {
        liar.answer(id, Answer::Processes(vec![]));
    }),
    way("tells of the ends of strangers", Point::Running, |liar, _| {
        (0..MANY).for_each(|number| liar.exit(number.wrapping_add(1000), ProcessStatus::Code(1), 0));
    }),
    way("tells of memory without end", Point::Running, |liar, _| {
        (0..MANY).for_each(|number| {
            liar.say(&FromAgent::OutOfMemory { container: ContainerKey(number % 3) });
        });
    }),
    way("ends it again and again", Point::Running, |liar, _| {
        (0..MANY).for_each(|number| liar.exit(0, ProcessStatus::Code(number.to_le_bytes()[0]), 0));
    }),
    way("claims more output than there can be", Point::Running, |liar, _| {
        liar.exit(0, ProcessStatus::Code(0), u64::MAX);
    }),
    way("ends it by a signal that there is not", Point::Running, |liar, _| {
        liar.exit(0, ProcessStatus::Signal(255), 0);
    }),
    way("answers what nobody asked, without end", Point::Running, |liar, _| {
        (0..MANY).for_each(|number| liar.answer(number | 1 << 31, Answer::Done));
    }),
    way("sends a byte at a time", Point::Running, |liar, _| {
        for byte in frame::encode(&FromAgent::OutOfMemory { container: ContainerKey(0) })
            .unwrap_or_default()
            .repeat(20)
        {
            liar.raw(&[byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
    }),
    way("takes nothing any more", Point::Running, |liar, _| {
        // What is sent to it stays where it is: the other end's buffer is small.
        let _ = setsockopt(liar.0, sockopt::RcvBuf, &4096);
        std::thread::sleep(Duration::from_secs(6));
    }),
    way("lists more processes than there can be", Point::Processes, |liar, id| {
        let one = GuestProcess {
            pid: i32::MIN,
            parent: i32::MAX,
            uid: u32::MAX,
            key: None,
            ticks: u64::MAX,
            started: u64::MAX,
            terminal: u32::MAX,
            state: '\0',
            nice: i32::MIN,
            threads: u32::MAX,
            virtual_memory: u64::MAX,
            resident_memory: u64::MAX,
            name: "\n".repeat(100),
            command: "\0".repeat(50),
        };
        liar.answer(id, Answer::Processes(vec![one; 18_000]));
    }),
    way("says that it has killed", Point::Kill, |liar, id| liar.answer(id, Answer::Done)),
    way("says that there is nobody to kill", Point::Kill, |liar, id| {
        let failure = Failure { kind: FailureKind::NotFound, message: String::new() };
        liar.say(&FromAgent::Reply { id, outcome: Err(failure) });
    }),
    way("does not answer a kill", Point::Kill, |_, _| {}),
    way("leaves instead of killing", Point::Kill, |liar, _| liar.leave()),
    way("kills, and claims output that never comes", Point::Kill, |liar, id| {
        liar.answer(id, Answer::Done);
        liar.exit(0, ProcessStatus::Signal(9), u64::MAX);
    }),
];
