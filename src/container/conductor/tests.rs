//! A container's life with a guest, an agent and a vsock device that are played here; everything between them, the
//! control socket included, is real.

mod agent;
mod evil_agent;
mod exec;
mod kill;
mod life;
mod memory;
mod pod;
mod stage;

use agent::{Agent, Manners};
pub(super) use stage::container;
use stage::*;

use super::streams::Offered;
use super::streams::testing::Board;
use super::*;
use crate::device::fs::Exports;
use crate::device::vsock::Endpoint;
use crate::host::clock::Jumps;
use crate::machine::control::client::{self, ClientError, Connection};
use crate::machine::control::wire::WireError;
use crate::machine::control::{Address, Command, Outcome, Phase, listen_at, server};
use crate::machine::order::{
    AccessTimes, Export, ExportDevice, Joining, Report, SystemCalls, receive_report, send_proceed,
};
use crate::process::signal::Signals;
use crate::process::stdio::Descriptors;
use husk_evil_agent::{Point, Way};
use husk_protocol::{Failure, FailureKind, FromAgent, ProcessStatus, Request, Stdio, Target, frame};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// What the threads here may call: a mistake in their lists ends the test.
const WALLS: Walls = Walls::new(SystemCalls::Enforce);
/// The slot that a balloon gets.
const BALLOON: u32 = 12;
/// The slot of the memory device.
const MEMORY: u32 = 13;
/// The port of localhost at which somebody inside listens.
const LISTENED: u16 = 8080;
/// Of the machine.
const SIZE: Size = Size { begun_mib: 512, most_mib: 2048, headroom_mib: 48 };
const SOON: Option<Duration> = Some(Duration::from_secs(5));
