//! A connection to a D-Bus, or to one who speaks its language on a socket of its own: calls, their answers, signals.
//!
//! For commands that ask something and go their way: it waits for what it asked for and makes no thread.

mod message;

pub use message::{Kind, Message, Method};

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zbus::DynamicType;

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody listens there.
    #[error("dial unix {path}")]
    Unreachable {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// We are not let in.
    #[error("dbus: authentication failed: {0}")]
    NotLetIn(String),
    /// It went away, or speaks another language.
    #[error("dbus: connection lost")]
    Lost(#[source] io::Error),
    /// No answer came in time.
    #[error("dbus: no answer in time")]
    TimedOut,
    /// A call that cannot be put in bytes, or an answer that is not the one expected.
    #[error("dbus: {0}")]
    Form(String),
    /// The call was refused.
    #[error("{text}")]
    Refused {
        /// The error's name.
        name: String,
        /// Its words.
        text: String,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    socket: BufReader<UnixStream>,
    serial: u32,
    /// Heard while something else was waited for.
    heard: VecDeque<Message>,
    until: Instant,
}

impl Bus {
    /// Connects and says who we are. All that is asked must be answered `within` this time.
    pub fn open(path: &Path, within: Duration) -> Result<Bus, BusError> {
        let unreachable = |source| BusError::Unreachable { path: path.to_owned(), source };
        let socket = UnixStream::connect(path).map_err(unreachable)?;
        let until = super::deadline::after(within);
        let mut bus = Bus { socket: BufReader::new(socket), serial: 0, heard: VecDeque::new(), until };
        bus.authenticate()?;
        Ok(bus)
    }

    /// By the credentials that the kernel tells the other end; the number is that of our user, in hexadecimal ASCII.
    fn authenticate(&mut self) -> Result<(), BusError> {
        let user = nix::unistd::geteuid().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut line = Vec::new();
        self.be_in_time()?;
        let mut bounded = (&mut self.socket).take(LONGEST_LINE);
        bounded.read_until(b'\n', &mut line).map_err(of_reading)?;
        if !line.starts_with(b"OK ") {
            return Err(BusError::NotLetIn(String::from_utf8_lossy(&line).trim().to_owned()));
        }
        self.write(b"BEGIN\r\n")
    }

    /// Calls, without waiting for the answer: that is had with [`Bus::answer`].
    pub fn call<B>(&mut self, method: Method<'_>, arguments: &B) -> Result<u32, BusError>
    where
        B: serde::Serialize + DynamicType,
    {
        self.serial = self.serial.wrapping_add(1);
        let bytes = message::call(method, self.serial, arguments)
            .map_err(|error| BusError::Form(error.to_string()))?;
        self.write(&bytes)?;
        Ok(self.serial)
    }

    /// The answer to a call.
    pub fn answer(&mut self, serial: u32) -> Result<Message, BusError> {
        let message =
            self.next(|message| matches!(message.kind, Kind::Reply(of) | Kind::Error(of) if of == serial))?;
        match message.kind {
            Kind::Reply(_) => Ok(message),
            _ => {
                let text = message.arguments::<String>().unwrap_or_else(|_| message.name.clone());
                Err(BusError::Refused { name: message.name, text })
            }
        }
    }

    /// The next signal of this name (`INTERFACE.MEMBER`) that is `wanted`.
    pub fn signal(&mut self, name: &str, wanted: impl Fn(&Message) -> bool) -> Result<Message, BusError> {
        self.next(|message| message.kind == Kind::Signal && message.name == name && wanted(message))
    }

    fn next(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Message, BusError> {
        if let Some(at) = self.heard.iter().position(&wanted)
            && let Some(message) = self.heard.remove(at)
        {
            return Ok(message);
        }
        loop {
            self.be_in_time()?;
            let message = Message::read(&mut self.socket).map_err(of_reading)?;
            if wanted(&message) {
                return Ok(message);
            }
            self.heard.push_back(message);
            if self.heard.len() > MOST_HEARD {
                self.heard.pop_front();
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        self.be_in_time()?;
        self.socket.get_mut().write_all(bytes).map_err(of_reading)
    }

    /// Bounds the next reads and writes by what is left of the time.
    fn be_in_time(&self) -> Result<(), BusError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(BusError::TimedOut);
        }
        let socket = self.socket.get_ref();
        let bounded = socket.set_read_timeout(Some(left)).and_then(|()| socket.set_write_timeout(Some(left)));
        bounded.map_err(BusError::Lost)
    }
}

fn of_reading(error: io::Error) -> BusError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => BusError::TimedOut,
        _ => BusError::Lost(error),
    }
}

/// Longer than any answer to an authentication.
const LONGEST_LINE: u64 = 4096;
/// What is kept of what was not waited for: on a host where much happens, other people's signals.
const MOST_HEARD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Someone at `path` who answers the authentication with `word` and then sends `bytes`.
    fn peer(
        path: &Path,
        word: &'static str,
        bytes: Vec<u8>,
    ) -> std::thread::JoinHandle<(Vec<u8>, UnixStream)> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut line = Vec::new();
            BufReader::new(socket.try_clone().unwrap()).read_until(b'\n', &mut line).unwrap();
            socket.write_all(word.as_bytes()).unwrap();
            socket.write_all(&bytes).unwrap();
            (line, socket)
        })
    }

    #[test]
    fn who_we_are_is_told_first_and_a_refusal_is_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let other = peer(&path, "REJECTED EXTERNAL\r\n", Vec::new());
        let error = Bus::open(&path, Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.to_string(), "dbus: authentication failed: REJECTED EXTERNAL");
        let (said, _) = other.join().unwrap();
        assert!(said.starts_with(b"\0AUTH EXTERNAL 3") && said.ends_with(b"\r\n"), "{said:?}");
    }

    #[test]
    fn nobody_there_and_silence_are_errors_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        assert!(matches!(Bus::open(&path, Duration::from_secs(1)), Err(BusError::Unreachable { .. })));
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(Bus::open(&path, Duration::from_millis(50)), Err(BusError::TimedOut)));
    }

    #[test]
    fn signals_that_come_before_an_answer_are_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        // A call looks like a signal but for its kind, and an answer is one with a serial.
        let method = Method { destination: "a.b", path: "/", interface: "a.b", member: "Done" };
        let mut signal = message::call(method, 1, &("one",)).unwrap();
        signal[1] = 4;
        let mut bytes = signal.clone();
        bytes.extend([b'l', 2, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 5, 1, b'u', 0, 1, 0, 0, 0]);
        let other = peer(&path, "OK 1234\r\n", bytes);
        let mut bus = Bus::open(&path, Duration::from_secs(10)).unwrap();
        let serial = bus.call(method, &()).unwrap();
        bus.answer(serial).unwrap();
        let heard = bus.signal("a.b.Done", |message| message.arguments::<(String,)>().is_ok()).unwrap();
        assert_eq!(heard.arguments::<(String,)>().unwrap().0, "one");
        drop(other.join().unwrap());
        assert!(matches!(bus.answer(7), Err(BusError::Lost(_))));
    }
}
