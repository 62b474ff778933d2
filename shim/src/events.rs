//! Events for containerd, in the order in which they happened.
//!
//! One thread sends them, one after the other. containerd may be gone for a while (it is restarted under running
//! containers): what was not taken is kept and offered again, so that an exit in the gap is heard after it.

use crate::{address, log};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::{EventsClient, topics};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};

/// The most that are kept. containerd learns of what is lost beyond that when it asks for states.
const MOST: usize = 2048;
/// How long containerd may take for one.
const TO_TAKE: Duration = Duration::from_secs(5);
/// The pause after one that was not taken.
const PAUSE: Duration = Duration::from_millis(500);
/// The sender needs little.
const STACK: usize = 128 << 10;

/// An event's message.
pub trait Event: Message {
    /// What it is about.
    const TOPIC: &'static str;
}

macro_rules! topics {
    ($($event:ty => $topic:ident),* $(,)?) => { $(impl Event for $event { const TOPIC: &'static str = topics::$topic; })* };
}

topics! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC,
    TaskStart => TASK_START_EVENT_TOPIC,
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskOOM => TASK_OOM_EVENT_TOPIC,
    TaskPaused => TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => TASK_RESUMED_EVENT_TOPIC,
    TaskExit => TASK_EXIT_EVENT_TOPIC,
    TaskDelete => TASK_DELETE_EVENT_TOPIC,
}

/// Where events are given.
#[derive(Clone)]
pub struct Events {
    namespace: String,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Envelope>>,
    changed: Condvar,
}

impl Events {
    /// Begins to send them to containerd's ttrpc socket. Without one nobody wants them.
    pub fn begin(namespace: &str, socket: Option<&str>) -> std::io::Result<Events> {
        let queue = Arc::new(Queue::default());
        let events = Events { namespace: namespace.to_owned(), queue: Arc::clone(&queue) };
        if let Some(socket) = socket {
            let socket =
                if socket.contains("://") { socket.into() } else { format!("{}{socket}", address::SCHEME) };
            std::thread::Builder::new()
                .name("events".into())
                .stack_size(STACK)
                .spawn(move || queue.send_all(&socket))?;
        }
        Ok(events)
    }

    /// One has happened, after all that were given before.
    pub fn publish<E: Event>(&self, event: &E) {
        let Ok(value) = event.write_to_bytes() else { return };
        let envelope = Envelope {
            timestamp: MessageField::some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                type_url: format!("containerd.events.{}", E::NAME),
                value,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut waiting = self.queue.lock();
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back(envelope);
        self.queue.changed.notify_all();
    }

    /// Waits, up to `limit`, until all have been taken.
    pub fn flush(&self, limit: Duration) {
        let waited =
            self.queue.changed.wait_timeout_while(self.queue.lock(), limit, |waiting| !waiting.is_empty());
        drop(waited);
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Envelope>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_all(&self, socket: &str) {
        let mut client: Option<EventsClient> = None;
        let mut silent_since: Option<Instant> = None;
        loop {
            let nothing = self.changed.wait_while(self.lock(), |waiting| waiting.is_empty());
            let next = nothing.unwrap_or_else(PoisonError::into_inner).front().cloned();
            let Some(envelope) = next else { continue };
            let request = ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
            let sent = match &client {
                Some(client) => send(client, &request),
                None => ttrpc::Client::connect(socket).and_then(|connected| {
                    let connected = EventsClient::new(connected);
                    send(&connected, &request)?;
                    client = Some(connected);
                    Ok(())
                }),
            };
            match sent {
                // Refused is taken: it will not be taken the next time either.
                Ok(()) | Err(ttrpc::Error::RpcStatus(_)) => {
                    silent_since = None;
                    self.lock().pop_front();
                    self.changed.notify_all();
                }
                Err(error) => {
                    client = None;
                    if silent_since.is_none() {
                        silent_since = Some(Instant::now());
                        log::error(&format!("containerd does not take events: {error}"));
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

fn send(client: &EventsClient, request: &ForwardRequest) -> ttrpc::Result<()> {
    client.forward(ttrpc::context::with_duration(TO_TAKE), request).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::{Events as Service, create_events};
    use protobuf::well_known_types::empty::Empty;
    use std::sync::mpsc::{Sender, channel};

    struct Containerd(Mutex<Sender<(String, String)>>);

    impl Service for Containerd {
        fn forward(&self, _: &ttrpc::TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let envelope = request.envelope.unwrap();
            let heard = (envelope.topic, envelope.event.unwrap().type_url);
            self.0.lock().unwrap().send(heard).unwrap();
            Ok(Empty::new())
        }
    }

    #[test]
    fn what_happens_while_containerd_is_away_is_heard_when_it_is_back_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("c.ttrpc");
        let events = Events::begin("default", socket.to_str()).unwrap();
        events.publish(&TaskStart { container_id: "one".into(), ..Default::default() });
        events.publish(&TaskExit { container_id: "one".into(), ..Default::default() });
        std::thread::sleep(Duration::from_millis(50));
        let (say, heard) = channel();
        let service = create_events(Arc::new(Containerd(Mutex::new(say))));
        let mut server = ttrpc::Server::new().bind(&format!("unix://{}", socket.display())).unwrap();
        server = server.register_service(service);
        server.start().unwrap();
        let next = || heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(next(), ("/tasks/start".into(), "containerd.events.TaskStart".into()));
        assert_eq!(next(), ("/tasks/exit".into(), "containerd.events.TaskExit".into()));
        events.flush(Duration::from_secs(10));
        assert!(events.queue.lock().is_empty());
        server.shutdown();
    }
}
