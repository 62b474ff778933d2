//! A person at a terminal: types, and waits for what should appear.

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{Winsize, openpty},
};
use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A program on a pseudo-terminal.
pub struct Terminal {
    master: File,
    /// The program.
    pub child: Child,
    /// Everything it has printed so far.
    pub screen: String,
}

impl Terminal {
    /// Starts `command` with a terminal of the given size as its controlling terminal and stdio.
    pub fn spawn(mut command: Command, rows: u16, columns: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a pseudo-terminal");
        let side = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        command.stdin(side()).stdout(side()).stderr(side());
        // SAFETY: between fork and exec only async-signal-safe calls are made: setsid and an ioctl.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                // The terminal is descriptor 0 by now.
                nix::errno::Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        let child = command.spawn().expect("the program can be run");
        drop(pair.slave);
        let master = File::from(pair.master);
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("our own descriptor");
        Terminal { master, child, screen: String::new() }
    }

    /// Types.
    pub fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes input");
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize through the pointer, which lives across the call.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(done, 0, "the size can be set");
    }

    /// Waits until what was printed since the start, or since the last call, contains `text`; takes all up to it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.screen.find(text) {
                let rest = self.screen.split_off(at + text.len());
                return std::mem::replace(&mut self.screen, rest);
            }
            let over = !self.pull();
            assert!(!over, "the terminal closed before {text:?} appeared; it shows: {:?}", self.screen);
            assert!(
                Instant::now() < deadline,
                "{text:?} did not appear; the terminal shows: {:?}",
                self.screen
            );
        }
    }

    /// Reads what is there; false at the end.
    fn pull(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => {
                self.screen.push_str(&String::from_utf8_lossy(&bytes[..length]));
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
                true
            }
            // EIO: every descriptor of the other side is closed.
            Err(_) => false,
        }
    }
}
