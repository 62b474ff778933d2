//! A kubelet's part of a conversation with containerd: one call of Kubernetes' container runtime interface (CRI) each time
//! it is run, told on standard output in a line.
//!
//! ```text
//!   cri SOCKET run-pod RUNTIME NAME [--memory BYTES] [--cpus N] [--port HOST:CONTAINER]    -> the pod's id
//!   cri SOCKET create POD-ID POD-NAME NAME IMAGE [--memory BYTES] [--pid pod] [--mount HOST:INSIDE[:ro]] [--stdin once] -- COMMAND...
//!   cri SOCKET start | stop | remove | status | stats ID        cri SOCKET exec ID COMMAND...
//!   cri SOCKET update ID BYTES
//!   cri SOCKET exec-stream [--tty ROWSxCOLUMNS] ID COMMAND...    cri SOCKET attach ID    cri SOCKET forward POD-ID PORT
//!   cri SOCKET stop-pod | remove-pod | pod-status | pod-stats POD-ID    cri SOCKET ready
//! ```
//! Fields are named by their numbers in `runtime.v1`: there are few. What streams takes what it sends from standard input,
//! all of it before it reads. What fails ends with status 1 and the words of the other side.

mod call;
mod message;
mod stream;

use call::call;
use message::Message;
use std::io::Read;
use std::process::ExitCode;

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
        ("exec-stream", ["--tty", size, id, command @ ..]) => {
            let request = command.iter().fold(of(id), |request, word| request.text(2, word));
            let url = call("Exec", request.number(3, 1).number(4, 1).number(5, 1))?.string(1);
            stream::process(&url, &input()?, Some(size))
        }
        ("exec-stream", [id, command @ ..]) => {
            let request = command.iter().fold(of(id), |request, word| request.text(2, word));
            let url = call("Exec", request.number(4, 1).number(5, 1).number(6, 1))?.string(1);
            stream::process(&url, &input()?, None)
        }
        ("attach", [id]) => {
            let url = call("Attach", of(id).number(2, 1).number(4, 1).number(5, 1))?.string(1);
            stream::process(&url, &input()?, None)
        }
        ("forward", [pod_id, port]) => {
            let url = call("PortForward", of(pod_id).number(2, number(port)?))?.string(1);
            stream::forward(&url, port, &input()?)
        }
        ("ready", []) => call("Version", Message::default()).map(|_| String::new()),
        ("stats", [id]) => {
            let stats = call("ContainerStats", of(id))?.inner(1);
            let memory = stats.inner(3).inner(2).value(1);
            let cpu = stats.inner(2).inner(2).value(1);
            Ok(format!("{cpu} {memory}\n"))
        }
        ("pod-stats", [id]) => {
            let stats = call("PodSandboxStats", of(id))?.inner(1).inner(2);
            let memory = stats.inner(2).inner(2).value(1);
            let cpu = stats.inner(1).inner(2).value(1);
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
            ["--stdin", "once"] => config = config.number(12, 1).number(13, 1),
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

fn input() -> Outcome<Vec<u8>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(|error| format!("standard input: {error}"))?;
    Ok(input)
}

fn number(text: &str) -> Outcome<u64> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// `NamespaceMode`.
const PIDS_OF_THE_POD: u64 = 0;
const PIDS_OF_ITS_OWN: u64 = 1;
/// Where containerd writes what containers print.
const LOGS: &str = "/var/tmp/husk-pods/logs";
