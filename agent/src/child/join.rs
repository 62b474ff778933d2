//! One more process of a container: joins the namespaces of its first process and becomes the program.
//!
//! It is born in the container's cgroup and pid namespace (see [`crate::call::exec`]); here it joins the others. From then
//! on everything it opens is the container's, and it stays opaque to the processes there until its execve.

use super::program::{self, ProgramError};
use super::{Streams, begin, give_up, open_streams, terminal};
use crate::channel::ChildEnd;
use crate::sys::{self, file, process};
use husk_protocol::Process;
use std::os::fd::OwnedFd;

/// Why the process could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The first steps.
    #[error("prepare the set-up process")]
    Begin(#[source] sys::Error),
    /// setns(2).
    #[error("join the container's namespaces")]
    Namespaces(#[source] sys::Error),
    /// The container's root.
    #[error("open the container's root")]
    Root(#[source] sys::Error),
    /// See there.
    #[error(transparent)]
    Terminal(#[from] terminal::TerminalError),
    /// See there.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// What is joined.
pub struct Joined<'a> {
    /// The container's first process.
    pub first: &'a OwnedFd,
    /// `CLONE_NEW*` of the namespaces that the container has of its own.
    pub namespaces: i32,
    /// The container's id.
    pub id: &'a str,
    /// The container's personality.
    pub personality: Option<u64>,
}

/// Joins and becomes the process.
pub fn run(joined: &Joined<'_>, process: &Process, streams: Streams, channel: &ChildEnd) -> ! {
    let Err(error) = join(joined, process, streams, channel);
    give_up(channel, &error)
}

fn join(
    joined: &Joined<'_>,
    process: &Process,
    streams: Streams,
    channel: &ChildEnd,
) -> Result<std::convert::Infallible, JoinError> {
    begin(channel, &streams, &[joined.first], joined.id).map_err(JoinError::Begin)?;
    process::set_namespaces(joined.first, joined.namespaces).map_err(JoinError::Namespaces)?;
    if joined.namespaces & libc::CLONE_NEWUSER != 0 {
        process::set_ids(0, 0, &[]).map_err(JoinError::Namespaces)?;
    }
    let root =
        file::open_at(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0).map_err(JoinError::Root)?;
    let stdio = open_streams(streams, &root, process, channel)?;
    drop(root);
    Err(program::run(process, joined.personality, &stdio, channel, None).into())
}
