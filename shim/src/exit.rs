//! A process's end: happens once, is waited for by any number of callers, and is never forgotten while it can be asked for.

use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// With what, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// As a shell says it.
    pub status: u8,
    /// When it was seen.
    pub at: SystemTime,
}

impl Exit {
    /// Now.
    pub fn now(status: u8) -> Exit {
        Exit { status, at: SystemTime::now() }
    }

    /// When, as messages have it.
    pub fn timestamp(&self) -> MessageField<Timestamp> {
        MessageField::some(self.at.into())
    }
}

/// Where it is noted.
#[derive(Debug, Default)]
pub struct Ended {
    exit: Mutex<Option<Exit>>,
    changed: Condvar,
}

impl Ended {
    /// It has ended. Only the first word counts.
    pub fn note(&self, exit: Exit) {
        self.lock().get_or_insert(exit);
        self.changed.notify_all();
    }

    /// Whether it has.
    pub fn get(&self) -> Option<Exit> {
        *self.lock()
    }

    /// Waits until it has.
    pub fn wait(&self) -> Exit {
        let mut exit = self.lock();
        loop {
            match *exit {
                Some(exit) => return exit,
                None => exit = self.changed.wait(exit).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits until it has, or `limit` is over.
    pub fn wait_for(&self, limit: Duration) -> Option<Exit> {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |exit| exit.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Exit>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_who_waits_hears_the_first_word() {
        let ended = Ended::default();
        assert_eq!(ended.wait_for(Duration::from_millis(5)), None);
        let first = Exit::now(3);
        let seen: Vec<Exit> = std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| ended.wait())).collect();
            ended.note(first);
            ended.note(Exit::now(4));
            waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(seen, vec![first; 4]);
        assert_eq!(ended.get(), Some(first));
    }
}
