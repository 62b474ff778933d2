//! Several queue pairs, each on a thread of its own, as many as the driver says that it uses.
//!
//! ```text
//!   control queue --how many--> this thread --turns a port on, begins a thread--> worker (rx N, tx N, port N)
//!                                    ^                                                |
//!                                    +------------- it is broken ---------------------+
//! ```
//! The device's own thread looks after the control queue, and sleeps otherwise. The others are made by it: they have
//! what it has of privileges, which is nothing. With one pair alone there is neither control queue nor other thread.

use super::worker::{self, Surroundings};
use super::{Port, control};
use crate::device::event::{borrow, look};
use crate::device::{ActiveQueue, DeviceError, Session};
use nix::poll::{PollFd, PollFlags};
use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Serves until told to stop. `most`: how many pairs were agreed upon; `in_use` is how many the driver uses, and is
/// kept up to date.
pub(super) fn serve(
    session: &mut Session,
    ports: &[Box<dyn Port>],
    events: &Events,
    most: usize,
    in_use: &mut u16,
) -> Result<(), DeviceError> {
    let Session { memory, queues, interrupt, stop, features, .. } = session;
    let around = Surroundings { memory, features: *features, interrupt: interrupt.as_ref() };
    let missing = DeviceError::Driver("it has no control queue");
    let (pairs, control) = queues.split_at_mut_checked(most.saturating_mul(2)).ok_or(missing)?;
    let Some(control) = control.first_mut().filter(|control| control.queue.ready()) else {
        return Err(DeviceError::Driver("it did not set up its control queue"));
    };
    let broken = &events.broken;
    // Of the session before.
    let _ = broken.read();
    std::thread::scope(|scope| {
        let begin = Begin { scope, around, broken };
        let mut pairs: Vec<Pair<'_, '_>> = ports
            .iter()
            .zip(&events.stops)
            .zip(pairs.chunks_exact_mut(2))
            .map(|((port, stop), queues)| Pair {
                port: port.as_ref(),
                stop,
                queues: Some(queues),
                serving: None,
            })
            .collect();
        let mut conduct = || {
            use_pairs(&mut pairs, *in_use, &begin)?;
            loop {
                let most = u16::try_from(most).unwrap_or(u16::MAX);
                let (told, more) = control::serve(control, around.memory, most, |wanted| {
                    let done = use_pairs(&mut pairs, wanted, &begin);
                    match &done {
                        Ok(()) => *in_use = wanted,
                        Err(error) => tracing::debug!(%error, wanted, "cannot use as many queue pairs"),
                    }
                    done.is_ok()
                })?;
                if told {
                    around.interrupt.used();
                }
                let mut fds =
                    [stop, broken, &control.kick].map(|event| PollFd::new(borrow(event), PollFlags::POLLIN));
                look(&mut fds, !more).map_err(|errno| host("poll", errno.into()))?;
                let [stopped, broken, kicked] = fds.map(|fd| fd.any().unwrap_or(false));
                if stopped || broken {
                    return Ok(());
                }
                if kicked {
                    let _ = control.kick.read();
                }
            }
        };
        let outcome = conduct();
        // All of them, always.
        pairs.iter_mut().map(Pair::rest).fold(outcome, Result::and)
    })
}

/// Has the first `wanted` pairs served, and no others.
fn use_pairs<'s, 'e>(
    pairs: &mut [Pair<'s, 'e>],
    wanted: u16,
    begin: &Begin<'s, 'e>,
) -> Result<(), DeviceError> {
    for (at, pair) in pairs.iter_mut().enumerate() {
        if at < usize::from(wanted) {
            pair.serve(at, begin)?;
        } else {
            pair.rest()?;
            turn(pair.port, at, false)?;
        }
    }
    Ok(())
}

/// What threads are told with. The device has it before it serves: later it may not take anything from the host any more.
pub(super) struct Events {
    /// A pair's thread has ended by itself.
    broken: EventFd,
    /// For each pair: its thread is to end.
    stops: Vec<EventFd>,
}

impl Events {
    /// For so many pairs.
    pub(super) fn open(pairs: usize) -> io::Result<Events> {
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        Ok(Events { broken: event()?, stops: (0..pairs).map(|_| event()).collect::<io::Result<_>>()? })
    }
}

/// What a pair's thread is begun with.
struct Begin<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    around: Surroundings<'e>,
    broken: &'e EventFd,
}

/// A pair.
struct Pair<'s, 'e> {
    port: &'e dyn Port,
    stop: &'e EventFd,
    /// Unless a thread has them.
    queues: Option<&'e mut [ActiveQueue]>,
    serving: Option<ScopedJoinHandle<'s, Ended<'e>>>,
}

type Ended<'e> = (&'e mut [ActiveQueue], Result<(), DeviceError>);

impl<'s, 'e> Pair<'s, 'e> {
    fn serve(&mut self, at: usize, begin: &Begin<'s, 'e>) -> Result<(), DeviceError> {
        if self.queues.as_ref().is_some_and(|queues| queues.iter().any(|queue| !queue.queue.ready())) {
            return Err(DeviceError::Driver("it did not set up all its queues"));
        }
        let stop = self.stop;
        // What the thread before was told.
        let _ = stop.read();
        turn(self.port, at, true)?;
        // If no thread can be made, they are lost until the driver begins anew.
        let Some(queues) = self.queues.take() else { return Ok(()) };
        let (port, around, broken) = (self.port.as_fd(), begin.around, begin.broken);
        let body = move || {
            let outcome = worker::serve(queues, port, around, stop);
            if outcome.is_err() {
                let _ = broken.write(1);
            }
            (queues, outcome)
        };
        let thread = Builder::new().name(format!("net-{at}")).spawn_scoped(begin.scope, body);
        let thread = thread.map_err(|source| host("make a thread for a queue pair", source))?;
        self.serving = Some(thread);
        Ok(())
    }

    /// Ends its thread, if it has one; what became of that.
    fn rest(&mut self) -> Result<(), DeviceError> {
        let Some(thread) = self.serving.take() else { return Ok(()) };
        let _ = self.stop.write(1);
        let (queues, outcome) =
            thread.join().map_err(|_| host("serve a queue pair", io::ErrorKind::Other.into()))?;
        self.queues = Some(queues);
        outcome
    }
}

/// The first is always on.
fn turn(port: &dyn Port, at: usize, on: bool) -> Result<(), DeviceError> {
    if at == 0 {
        Ok(())
    } else {
        port.turn(on).map_err(|source| host("turn a queue of the TAP on or off", source))
    }
}

fn host(what: &'static str, source: io::Error) -> DeviceError {
    DeviceError::Host { what, source }
}
