//! A file server's client: FUSE requests on a queue, many at a time.

use crate::mmio::{INDIRECT, STATUS, VERSION_1, Window};
use crate::queue::{Descriptor, Queue};
use crate::{Failure, device, memory, time};
use husk_evil_guest::message::{Message, OUT_HEADER, ROOT, init, opcode};

/// A file server that has said what it can do.
pub struct Server {
    window: Window,
    queue: Queue,
    unique: u64,
}

/// A reply.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// 0, or an errno above 0.
    pub error: u32,
    /// How long it is.
    pub length: u32,
    /// The first number of its body: an inode's, mostly.
    pub node: u64,
}

impl Server {
    /// Begins with the first (the container's root) or the second (everything else that is shared).
    pub fn mount(number: usize) -> Result<Server, Failure> {
        let window = Window::find(device::FILES, number)?;
        window.begin(VERSION_1 | INDIRECT)?;
        Queue::open(window, 0)?;
        let queue = Queue::open(window, 1)?;
        window.go()?;
        let mut server = Server { window, queue, unique: 0 };
        server.begin()?;
        Ok(server)
    }

    /// Begins anew: what was known is forgotten.
    pub fn begin(&mut self) -> Result<(), Failure> {
        let unique = self.number();
        match self.ask(&mut init(unique))?.error {
            0 => Ok(()),
            error => Err(Failure("INIT is refused", [error.into(), 0, 0])),
        }
    }

    /// A request's number.
    pub fn number(&mut self) -> u64 {
        self.unique += 1;
        self.unique
    }

    /// The directory that is shared first.
    pub fn export(&mut self) -> Result<u64, Failure> {
        self.look_up(ROOT, b"0")
    }

    /// A file that is there.
    pub fn look_up(&mut self, parent: u64, name: &[u8]) -> Result<u64, Failure> {
        let mut message = Message::new(opcode::LOOKUP, parent, self.number());
        message.name(name.iter().copied());
        match self.ask(&mut message)? {
            Reply { error: 0, node, .. } if node != 0 => Ok(node),
            Reply { error, node, .. } => Err(Failure("LOOKUP finds nothing", [error.into(), node, parent])),
        }
    }

    /// Makes an empty file in the directory that is shared first.
    pub fn make(&mut self, name: &[u8]) -> Result<(), Failure> {
        let top = self.export()?;
        let mut message = Message::new(opcode::MKNOD, top, self.number());
        message.words(&[0o100_644, 0, 0, 0]).name(name.iter().copied());
        match self.ask(&mut message)?.error {
            0 => Ok(()),
            error => Err(Failure("a file cannot be made", [error.into(), 0, 0])),
        }
    }

    /// Asks for one thing.
    pub fn ask(&mut self, message: &mut Message) -> Result<Reply, Failure> {
        let mut reply = None;
        self.send(0, message.whole());
        self.answers(1, time::LONG, |_, answer| {
            reply = Some(answer);
            Ok(())
        })?;
        reply.ok_or(Failure("no reply", [0; 3]))
    }

    /// Puts a request into its place; nobody is told yet.
    pub fn send(&mut self, number: u16, request: &[u8]) {
        let at = request_at(number);
        memory::put(at, request);
        memory::clear(reply_at(number), 32);
        let reply = Descriptor::writes(reply_at(number), REPLY_ROOM);
        self.queue.offer(number, Descriptor::reads(at, request.len() as u32), Some(reply));
    }

    /// Tells the server, and takes the replies to that many requests. How many came in time.
    pub fn answers(
        &mut self,
        count: u16,
        ticks: u64,
        mut take: impl FnMut(u16, Reply) -> Result<(), Failure>,
    ) -> Result<u16, Failure> {
        self.queue.kick();
        for done in 0..count {
            let Some((number, length)) = self.queue.take(ticks) else { return Ok(done) };
            let at = reply_at(number);
            let (told, error) = (memory::read(at, 4) as u32, memory::read(at + 4, 4) as i32);
            if length != 0 && told != length {
                return Err(Failure(
                    "a reply has another length than it says",
                    [told.into(), length.into(), 0],
                ));
            }
            let node = memory::read(at + OUT_HEADER as u64, 8);
            take(number, Reply { error: error.unsigned_abs(), length, node })?;
        }
        Ok(count)
    }
}
/// All devices' rings lie at the same places: one that is done with must not look there again.
impl Drop for Server {
    fn drop(&mut self) {
        self.window.write(STATUS, 0);
    }
}

fn request_at(number: u16) -> u64 {
    memory::BUFFERS + u64::from(number) * 0x4000
}

fn reply_at(number: u16) -> u64 {
    request_at(number) + 0x2000
}

/// How many requests there is room for at a time.
pub const BATCH: u16 = 64;
const REPLY_ROOM: u32 = 0x2000;
/// The errno of what makes no sense, of a name that is too long, and of an attribute's.
pub const REFUSALS: [u32; 3] = [22, 36, 34];
