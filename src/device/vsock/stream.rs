//! What the rest of the machine sees of one stream.

use super::switchboard::Board;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// One stream between guest and host, from its offer to its end. Used by any thread.
pub struct Stream {
    port: u32,
    board: Weak<Board>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    delivered: u64,
    output_over: bool,
    over: bool,
    /// Threads in [`Stream::wait_delivered`]; waking nobody is not free.
    waiting: usize,
}

impl Stream {
    pub(super) fn new(port: u32, board: &Arc<Board>) -> Arc<Stream> {
        let board = Arc::downgrade(board);
        Arc::new(Stream { port, board, progress: Mutex::default(), changed: Condvar::new() })
    }

    /// The port that the guest connects to.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Bytes that were written to `from_guest`.
    pub fn delivered(&self) -> u64 {
        self.lock().delivered
    }

    /// Waits until so many bytes were written to `from_guest`. True when they were, or never will be because its reader
    /// is gone or the stream is over; false at the deadline.
    pub fn wait_delivered(&self, bytes: u64, deadline: Option<Instant>) -> bool {
        let mut progress = self.lock();
        loop {
            if progress.delivered >= bytes || progress.output_over || progress.over {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            progress.waiting = progress.waiting.saturating_add(1);
            progress = match left {
                None => self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.changed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            progress.waiting = progress.waiting.saturating_sub(1);
        }
    }

    /// Whether both of the host's descriptors have been let go: everything that the guest sent was written (or cannot
    /// be), and nothing more will be read.
    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Ends the stream now: an offer is withdrawn, a connection is reset. What was not yet delivered is lost.
    pub fn abort(&self) {
        if let Some(board) = self.board.upgrade() {
            board.abort(self.port, self);
        }
    }

    pub(super) fn add_delivered(&self, bytes: u64) {
        self.change(|progress| progress.delivered = progress.delivered.saturating_add(bytes));
    }

    pub(super) fn set_output_over(&self) {
        self.change(|progress| progress.output_over = true);
    }

    pub(super) fn set_over(&self) {
        self.change(|progress| progress.over = true);
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.lock();
        change(&mut progress);
        if progress.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stream").field("port", &self.port).field("progress", &*self.lock()).finish()
    }
}
