//! A kubelet's part of a conversation with containerd: one call of Kubernetes' container runtime interface (CRI) each time
//! it is run, told on standard output in a line.
//!
//! ```text
//!   cri SOCKET run-pod RUNTIME NAME [--memory BYTES] [--cpus N] [--port HOST:CONTAINER]    -> the pod's id
//!   cri SOCKET create POD-ID POD-NAME NAME IMAGE [--memory BYTES] [--pid pod] [--mount HOST:INSIDE[:ro]] -- COMMAND...
//!   cri SOCKET start | stop | remove | status | stats ID        cri SOCKET exec ID COMMAND...
//!   cri SOCKET update ID BYTES
//!   cri SOCKET stop-pod | remove-pod | pod-status POD-ID
//! ```
//! A call of gRPC without streaming is one request of HTTP/2, which curl makes; messages are written and read here, by the
//! numbers of their fields in `runtime.v1`: there are few. What fails ends with status 1 and the words of the other side.

use std::{
    io::Write,
    process::{Command, ExitCode, Stdio},
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match act(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(told) => {
            print!("{told}");
            ExitCode::SUCCESS
        }
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, String>;

fn act(words: &[&str]) -> Outcome<String> {
    let [socket, verb, rest @ ..] = words else { return Err("cri SOCKET VERB ...".into()) };
    let call = |method, message: Message| call(socket, method, &message);
    let of = |id: &str| Message::default().text(1, id);
    match (*verb, rest) {
        ("run-pod", [runtime, name, options @ ..]) => {
            let request = Message::default().message(1, pod(name, options)?).text(2, runtime);
            Ok(call("RunPodSandbox", request)?.string(1) + "\n")
        }
        ("create", [pod_id, pod_name, name, image, rest @ ..]) => {
            let end = rest.iter().position(|word| *word == "--").unwrap_or(rest.len());
            let (options, command) = (rest.get(..end).unwrap_or(&[]), rest.get(end + 1..).unwrap_or(&[]));
            let config = container(name, image, options, command)?;
            let request = of(pod_id).message(2, config).message(3, pod(pod_name, &[])?);
            Ok(call("CreateContainer", request)?.string(1) + "\n")
        }
        ("start", [id]) => call("StartContainer", of(id)).map(|_| String::new()),
        ("stop", [id]) => call("StopContainer", of(id).number(2, 20)).map(|_| String::new()),
        ("remove", [id]) => call("RemoveContainer", of(id)).map(|_| String::new()),
        ("stop-pod", [id]) => call("StopPodSandbox", of(id)).map(|_| String::new()),
        ("remove-pod", [id]) => call("RemovePodSandbox", of(id)).map(|_| String::new()),
        ("update", [id, bytes]) => {
            let memory = Message::default().number(4, number(bytes)?);
            call("UpdateContainerResources", of(id).message(2, memory)).map(|_| String::new())
        }
        ("pod-status", [id]) => {
            let status = call("PodSandboxStatus", of(id))?.inner(1);
            let state = if status.value(3) == 0 { "ready" } else { "not ready" };
            Ok(format!("{state} {}\n", status.inner(5).string(1)))
        }
        ("status", [id]) => {
            let status = call("ContainerStatus", of(id))?.inner(1);
            let state = match status.value(3) {
                0 => "created",
                1 => "running",
                2 => "exited",
                _ => "unknown",
            };
            let (code, reason) = (status.value(7), status.string(10));
            Ok(format!("{state} {code} {reason}\n"))
        }
        ("exec", [id, command @ ..]) => {
            let request = command.iter().fold(of(id), |request, word| request.text(2, word)).number(3, 60);
            let done = call("ExecSync", request)?;
            eprint!("{}", done.string(2));
            Ok(format!("{}status {}\n", done.string(1), done.value(3)))
        }
        ("stats", [id]) => {
            let stats = call("ContainerStats", of(id))?.inner(1);
            let memory = stats.inner(3).inner(2).value(1);
            let cpu = stats.inner(2).inner(2).value(1);
            Ok(format!("{cpu} {memory}\n"))
        }
        _ => Err(format!("{verb} with {} words is not known", rest.len())),
    }
}

/// `PodSandboxConfig`.
fn pod(name: &str, options: &[&str]) -> Outcome<Message> {
    let metadata = Message::default().text(1, name).text(2, &format!("{name}-uid")).text(3, "default");
    let mut resources = Message::default();
    let mut config = Message::default().message(1, metadata).text(2, name).text(3, LOGS);
    for option in options.chunks(2) {
        match option {
            ["--memory", bytes] => resources = resources.number(4, number(bytes)?),
            ["--cpus", count] => resources = resources.number(1, 100_000).number(2, number(count)? * 100_000),
            ["--port", ports] => {
                let (outside, inside) = ports.split_once(':').ok_or("--port HOST:CONTAINER")?;
                let port = Message::default().number(2, number(inside)?).number(3, number(outside)?);
                config = config.message(5, port);
            }
            _ => return Err(format!("{option:?} is not known")),
        }
    }
    let own_pids = Message::default().message(1, Message::default().number(2, PIDS_OF_ITS_OWN));
    let linux =
        Message::default().text(1, &format!("/pods/{name}")).message(2, own_pids).message(5, resources);
    Ok(config.message(8, linux))
}

/// `ContainerConfig`.
fn container(name: &str, image: &str, options: &[&str], command: &[&str]) -> Outcome<Message> {
    let mut config = Message::default()
        .message(1, Message::default().text(1, name))
        .message(2, Message::default().text(1, image));
    config = command.iter().fold(config, |config, word| config.text(3, word));
    let (mut resources, mut pids) = (Message::default(), PIDS_OF_ITS_OWN);
    for option in options.chunks(2) {
        match option {
            ["--memory", bytes] => resources = resources.number(4, number(bytes)?),
            ["--pid", "pod"] => pids = PIDS_OF_THE_POD,
            ["--mount", mount] => {
                let mut parts = mount.split(':');
                let (outside, inside) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                let mount = Message::default().text(1, inside).text(2, outside);
                config = config.message(7, mount.number(3, u64::from(parts.next() == Some("ro"))));
            }
            _ => return Err(format!("{option:?} is not known")),
        }
    }
    let namespaces = Message::default().message(3, Message::default().number(2, pids));
    Ok(config
        .text(11, &format!("{name}.log"))
        .message(15, Message::default().message(1, resources).message(2, namespaces)))
}

fn number(text: &str) -> Outcome<u64> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// Makes a call: a frame (not compressed, its length, the message) there, and one back.
fn call(socket: &str, method: &str, request: &Message) -> Outcome<Fields> {
    let failed = |error: std::io::Error| format!("curl: {error}");
    // What comes after the message (trailers) is among them.
    let headers = format!("/tmp/cri-{}", std::process::id());
    let mut curl = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "120",
            "--http2-prior-knowledge",
            "--unix-socket",
            socket,
            "-D",
            &headers,
        ])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-"])
        .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let length = u32::try_from(request.0.len()).map_err(|_| "the request is too long")?;
    let frame = [&[0], length.to_be_bytes().as_slice(), &request.0].concat();
    curl.stdin.take().expect("piped").write_all(&frame).map_err(failed)?;
    let done = curl.wait_with_output().map_err(failed)?;
    let said = std::fs::read_to_string(&headers).unwrap_or_default();
    let _ = std::fs::remove_file(&headers);
    let header = |name: &str| {
        let lines = said.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned()).next_back()
    };
    match header("grpc-status").as_deref() {
        Some("0") => Ok(Fields(done.stdout.get(5..).unwrap_or_default().to_vec())),
        Some(code) => Err(format!("{method}: code {code}: {}", header("grpc-message").unwrap_or_default())),
        None => Err(format!("{method}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}

/// A message that is being written. What is 0 or empty is left out, as it means nothing else.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Message {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
        self
    }

    fn text(self, field: u64, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: Message) -> Message {
        self.bytes(field, &message.0)
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A message that was received. What is not there is 0 or empty.
struct Fields(Vec<u8>);

impl Fields {
    fn string(&self, field: u64) -> String {
        String::from_utf8_lossy(&self.find(field).1).into_owned()
    }

    fn inner(&self, field: u64) -> Fields {
        Fields(self.find(field).1)
    }

    fn value(&self, field: u64) -> u64 {
        self.find(field).0
    }

    /// The last field of that number: its number, or its bytes.
    fn find(&self, wanted: u64) -> (u64, Vec<u8>) {
        let (mut rest, mut found) = (self.0.as_slice(), (0, Vec::new()));
        while let Some(tag) = varint(&mut rest) {
            let (mut value, mut bytes): (u64, &[u8]) = (0, &[]);
            let length = match tag & 7 {
                0 => {
                    value = varint(&mut rest).unwrap_or(0);
                    0
                }
                1 => 8,
                5 => 4,
                _ => varint(&mut rest).and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
            };
            if length > 0 {
                let (taken, left) = rest.split_at(length.min(rest.len()));
                (bytes, rest) = (taken, left);
            }
            if tag >> 3 == wanted {
                found = (value, bytes.to_vec());
            }
        }
        found
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// `NamespaceMode`.
const PIDS_OF_THE_POD: u64 = 0;
const PIDS_OF_ITS_OWN: u64 = 1;
/// Where containerd writes what containers print.
const LOGS: &str = "/var/tmp/husk-pods/logs";
