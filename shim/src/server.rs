//! The server's process: from its first thread to its last.

use crate::events::Events;
use crate::failure::Failure;
use crate::flags::Flags;
use crate::service::{self, Service};
use crate::{log, memory};
use husk::process::stdio::replace_own_with_null;
use nix::sys::signal::{SigSet, Signal};
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long containerd may take for the last events.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// How long the last answer may take to be written.
const LAST_ANSWER: Duration = Duration::from_millis(50);

/// Serves the socket that is our standard input, until containerd says that it needs us no more.
pub fn serve(flags: &Flags) -> Result<(), Failure> {
    memory::one_pool();
    let listener = std::io::stdin().as_fd().try_clone_to_owned();
    let listener = listener.map_err(|error| Failure::host("keep the socket", &error))?;
    // Nobody hears what is said there.
    replace_own_with_null()
        .map_err(|error| Failure::invalid(format!("let the standard descriptors go: {error}")))?;
    log::begin();
    ignore_signals();

    let address = std::env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty());
    let events = Events::begin(&flags.namespace, address.as_deref())
        .map_err(|error| Failure::host("make a thread for events", &error))?;
    let (done, ended) = channel();
    let service = Arc::new(Service::new(&flags.namespace, flags.debug, events.clone(), done));
    let failed = |error: ttrpc::Error| Failure::invalid(format!("serve the socket: {error}"));
    let server = ttrpc::Server::new().add_listener(listener.into_raw_fd()).map_err(failed)?;
    let mut server = server.register_service(service::methods(&service));
    server.start().map_err(failed)?;
    memory::give_back();

    // It cannot fail: the service has the other end.
    let _ = ended.recv();
    events.flush(LAST_EVENTS);
    std::thread::sleep(LAST_ANSWER);
    // If it is gone already, somebody else has removed it.
    let _ = std::fs::remove_file(flags.socket());
    Ok(())
}

/// Who ends containerd's service ends it alone. Blocked, not ignored: what we start would inherit that they are ignored,
/// and starts with none blocked.
fn ignore_signals() {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        blocked.add(signal);
    }
    // Of this thread, and of all that it makes. It cannot fail.
    let _ = blocked.thread_block();
}
