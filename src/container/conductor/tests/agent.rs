//! The agent that is played here: its manners are a test's to choose.

use super::*;

/// How the agent behaves.
#[derive(Default)]
pub(super) struct Manners {
    /// Answers nothing any more.
    pub(super) mute: AtomicBool,
    /// Says that it has killed, and has not.
    pub(super) lies: AtomicBool,
    /// Tells of an end, and answers what led to it some time later.
    pub(super) hasty: AtomicBool,
    /// Claims this much more output than there is.
    pub(super) boasts: AtomicUsize,
    /// Is evil from some point on.
    pub(super) evil: Option<Way>,
}

/// The agent. A program is `echo WORDS`, which ends with status 7, or anything else, which runs until it is killed.
pub(super) struct Agent {
    pub(super) socket: UnixStream,
    pub(super) board: Arc<Board>,
    pub(super) manners: Arc<Manners>,
    pub(super) guest: Arc<Machine>,
    pub(super) first: Option<(ProcessKey, husk_protocol::Process)>,
    /// By their containers.
    pub(super) firsts: HashMap<ContainerKey, ProcessKey>,
    /// Streams stay open while their process lives.
    pub(super) streams: HashMap<ProcessKey, Vec<Endpoint>>,
    pub(super) signals: Arc<Mutex<Vec<(Target, i32)>>>,
}

impl Agent {
    pub(super) fn say(&mut self, message: &FromAgent) {
        let _ = self.socket.write_all(&frame::encode(message).unwrap());
    }

    /// Whether the time has come to be evil. It answers question number `id`.
    pub(super) fn turns(&mut self, point: Point, id: u32) -> bool {
        let evil = self.manners.evil.filter(|evil| evil.at == point);
        if let Some(evil) = evil {
            let host = self.socket.try_clone().unwrap();
            evil.act(&OwnedFd::from(host).into(), id);
        }
        evil.is_some()
    }

    pub(super) fn live(mut self) {
        if self.turns(Point::Greeting, 0) {
            // Whatever is asked goes nowhere.
            let _ = std::io::copy(&mut self.socket, &mut std::io::sink());
            return;
        }
        self.say(&FromAgent::Ready(Ready { version: husk_protocol::VERSION, uptime: 0 }));
        let mut prefix = [0; 4];
        while self.socket.read_exact(&mut prefix).is_ok() {
            let mut message = vec![0; frame::length(prefix).unwrap()];
            self.socket.read_exact(&mut message).unwrap();
            let Request { id, call } = frame::decode(&message).unwrap();
            if self.manners.mute.load(Ordering::SeqCst) {
                continue;
            }
            assert!(self.guest.runs.load(Ordering::SeqCst), "asked while paused: {call:?}");
            let point = match &call {
                Call::Create(_) => Some(Point::Create),
                Call::Start { .. } => Some(Point::Start),
                Call::Processes { .. } => Some(Point::Processes),
                Call::Signal { signal: libc::SIGKILL, .. } => Some(Point::Kill),
                _ => None,
            };
            if point.is_some_and(|point| self.turns(point, id)) {
                continue;
            }
            let started = point == Some(Point::Start);
            let mut ended = None;
            let answer = match call {
                Call::Create(container) => {
                    self.firsts.insert(container.key, container.process_key);
                    self.first = Some((container.process_key, container.process));
                    Answer::Created { guest_pid: 2 }
                }
                Call::Start { .. } => {
                    // If it has not made it, somebody else is to find out.
                    let Some((key, process)) = self.first.take() else { continue };
                    ended = self.execute(key, &process);
                    Answer::Done
                }
                Call::Exec(exec) => {
                    ended = self.execute(exec.key, &exec.process);
                    Answer::Created { guest_pid: 3 }
                }
                Call::Signal { target, signal } => {
                    self.signals.lock().unwrap().push((target, signal));
                    let key = match target {
                        Target::Process(key) => key,
                        Target::Container(key) => self.firsts[&key],
                    };
                    if signal == libc::SIGKILL && !self.manners.lies.load(Ordering::SeqCst) {
                        self.streams.remove(&key);
                        ended = Some(Exited {
                            process: key,
                            status: ProcessStatus::Signal(9),
                            stdout: 0,
                            stderr: 0,
                        });
                    }
                    Answer::Done
                }
                Call::Processes { .. } => Answer::Processes(Vec::new()),
                Call::AttachDevice { slot } => {
                    self.guest.looked_at.lock().unwrap().push(slot);
                    Answer::Done
                }
                Call::TakeMemory { slot, bytes } => {
                    assert_eq!(slot, MEMORY);
                    if bytes > self.guest.takes.load(Ordering::SeqCst) {
                        let late = Failure { kind: FailureKind::Guest, message: "it did not come".into() };
                        self.say(&FromAgent::Reply { id, outcome: Err(late) });
                        continue;
                    }
                    Answer::Done
                }
                Call::Forward { port, to: LISTENED } => {
                    let (ends, pipe) = self.board.connect(port).unwrap();
                    pipe.deliver(&ends, b"served");
                    Answer::Done
                }
                Call::Forward { .. } => {
                    let refused = Failure { kind: FailureKind::Guest, message: "refused".into() };
                    self.say(&FromAgent::Reply { id, outcome: Err(refused) });
                    continue;
                }
                _ => Answer::Done,
            };
            if let Some(exited) = ended.as_ref().filter(|_| self.manners.hasty.load(Ordering::SeqCst)) {
                self.say(&FromAgent::Exited(exited.clone()));
                std::thread::sleep(Duration::from_millis(300));
            }
            self.say(&FromAgent::Reply { id, outcome: Ok(answer) });
            if started {
                self.turns(Point::Running, id);
            }
            if let Some(exited) = ended {
                // Twice, and one of nobody: only what is news counts.
                self.say(&FromAgent::Exited(Exited { process: ProcessKey(77), ..exited.clone() }));
                self.say(&FromAgent::Exited(exited.clone()));
                self.say(&FromAgent::Exited(Exited { status: ProcessStatus::Code(99), ..exited }));
            }
        }
    }

    pub(super) fn execute(&mut self, key: ProcessKey, process: &husk_protocol::Process) -> Option<Exited> {
        let ports = match process.stdio {
            Stdio::Null => vec![],
            Stdio::Pipes { stdin, stdout, stderr } => [stdout, stdin, stderr].into_iter().flatten().collect(),
            Stdio::Terminal { port, .. } => vec![port],
        };
        let mut ends: Vec<_> = ports.into_iter().map(|port| self.board.connect(port).unwrap()).collect();
        if process.args[0] != "echo" {
            self.streams.insert(key, ends.into_iter().map(|(ends, _)| ends).collect());
            return None;
        }
        let words = process.args[1].clone();
        let stdout = words.len() as u64 + self.manners.boasts.load(Ordering::SeqCst) as u64;
        if !ends.is_empty() {
            let (ends, pipe) = ends.remove(0);
            std::thread::spawn(move || pipe.deliver(&ends, words.as_bytes()));
        }
        Some(Exited { process: key, status: ProcessStatus::Code(7), stdout, stderr: 0 })
    }
}
