//! The two ends of a new process's streams: pipes and connections to the host.

use crate::agent::Agent;
use crate::child::Streams as ChildStreams;
use crate::process::ProcessStreams;
use crate::stream::{Kind, StreamId};
use crate::sys;
use husk_protocol::Stdio;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::os::fd::OwnedFd;

/// A stream could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open the {stream} stream")]
pub struct StdioError {
    stream: &'static str,
    source: sys::Error,
}

/// Opens what the process is to have. What was opened before a failure is closed again.
pub fn open(agent: &mut Agent, stdio: &Stdio) -> Result<(ProcessStreams, ChildStreams), StdioError> {
    let mut streams = ProcessStreams::default();
    match ends(agent, stdio, &mut streams) {
        Ok(child) => Ok((streams, child)),
        Err(error) => {
            streams.drop_all(&mut agent.streams);
            Err(error)
        }
    }
}

fn ends(agent: &mut Agent, stdio: &Stdio, streams: &mut ProcessStreams) -> Result<ChildStreams, StdioError> {
    let (stdin, stdout, stderr) = match *stdio {
        Stdio::Null => (None, None, None),
        Stdio::Pipes { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Stdio::Terminal { port, size } => {
            let stream = || -> sys::Result<StreamId> {
                let socket = agent.machine.connect(port)?;
                agent.streams.add(&agent.poll, Kind::Terminal, socket, None)
            }();
            streams.stdout = Some(stream.map_err(|source| StdioError { stream: "terminal", source })?);
            streams.terminal = Some(size);
            return Ok(ChildStreams::Terminal(size));
        }
    };
    let mut one = |name: &'static str, kind: Kind, port: Option<u32>, place: &mut Option<StreamId>| {
        end(agent, kind, port, place).map_err(|source| StdioError { stream: name, source })
    };
    Ok(ChildStreams::Plain {
        stdin: one("stdin", Kind::Input, stdin, &mut streams.stdin)?,
        stdout: one("stdout", Kind::Output, stdout, &mut streams.stdout)?,
        stderr: one("stderr", Kind::Output, stderr, &mut streams.stderr)?,
    })
}

/// One pipe and its stream; gives the process's end. Without a port: /dev/null.
fn end(
    agent: &mut Agent,
    kind: Kind,
    port: Option<u32>,
    place: &mut Option<StreamId>,
) -> sys::Result<OwnedFd> {
    let Some(port) = port else { return Ok(agent.null.try_clone()?) };
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    let (ours, theirs) = if kind == Kind::Input { (write, read) } else { (read, write) };
    let socket = agent.machine.connect(port)?;
    *place = Some(agent.streams.add(&agent.poll, kind, socket, Some(ours))?);
    Ok(theirs)
}
