//! Network: interfaces that come and go, and how they are set up.
//!
//! What an interface is called, its addresses and its routes are the host's to word: requests go to the kernel as they
//! come.
//!
//! All of it waits for the kernel's network lock, which a container may hold: so it is done in helpers.

use super::{Outcome, device, failure, refused};
use crate::agent::Agent;
use crate::{job, names, start, sys};
use husk_protocol::{Answer, Failure, FailureKind, Interface, NetworkRequest};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Binds the driver, and finds the interface that came of it.
pub fn attach(agent: &mut Agent, request: u32, slots: Vec<u32>) -> Outcome {
    start::need_sysfs().map_err(|error| refused("mount sysfs", error))?;
    job::start(agent, Some(request), move || {
        slots.into_iter().map(attach_one).collect::<Result<_, _>>().map(Answer::Interfaces)
    });
    Ok(None)
}

/// Unbinds the driver; the interface is gone then.
pub fn detach(agent: &mut Agent, request: u32, slot: u32) -> Outcome {
    start::need_sysfs().map_err(|error| refused("mount sysfs", error))?;
    job::start(agent, Some(request), move || device::unbind(slot).map(|()| Answer::Done));
    Ok(None)
}

/// Hands requests to the kernel.
pub fn configure(agent: &mut Agent, request: u32, requests: Vec<NetworkRequest>) -> Outcome {
    job::start(agent, Some(request), move || {
        let socket = open().map_err(|error| refused("open a route socket", error))?;
        for (number, request) in requests.iter().enumerate() {
            if let Err(error) = ask(&socket, &request.message)
                && !request.may_fail
            {
                let kind = request.message.get(4..6).and_then(|bytes| bytes.try_into().ok());
                let kind = kind.map_or(0, u16::from_ne_bytes);
                if (kind, error.0) == (libc::RTM_NEWROUTE, Errno::EEXIST) {
                    continue;
                }
                return Err(refused(&format!("network request {number} (kind {kind})"), error));
            }
        }
        Ok(Answer::Done)
    });
    Ok(None)
}

/// Begins to take name look-ups.
pub fn serve_names(agent: &mut Agent, port: u32) -> Outcome {
    names::start(agent, port).map_err(|error| refused("take name look-ups at 127.0.0.11:53", error))?;
    Ok(Some(Answer::Done))
}

fn attach_one(slot: u32) -> Result<Interface, Failure> {
    device::bind(slot)?;
    let missing = || failure(FailureKind::Guest, format!("the device in slot {slot} has no interface"));
    let interface = interface(slot).ok_or_else(missing)?;
    let index = fs::read_to_string(interface.join("ifindex")).ok();
    let index = index.and_then(|text| text.trim().parse().ok()).ok_or_else(missing)?;
    let name = interface.file_name().ok_or_else(missing)?.to_string_lossy().into_owned();
    // Linux 6.12 leaves it off where the device can. Without it all is as right, and slower.
    let _ = sys::ethtool::turn_on(&name, "tx-udp-segmentation");
    Ok(Interface { index, name })
}

/// `.../virtio-mmio.4/virtio4/net/eth0`.
fn interface(slot: u32) -> Option<PathBuf> {
    let inside = |directory: &Path, prefix: &str| {
        let entries = fs::read_dir(directory).ok()?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
    };
    inside(&inside(&device::directory(slot), "virtio")?.join("net"), "")
}

fn open() -> sys::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
    let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request and waits for its acknowledgement: length, kind (2: an error, or 0 for none), flags, sequence, port,
/// and then the error.
fn ask(socket: &OwnedFd, message: &[u8]) -> sys::Result<()> {
    send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    loop {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        let is_error = answer.get(4..6).is_some_and(|kind| kind == 2u16.to_ne_bytes());
        let number = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match number {
            Some(0) if is_error => return Ok(()),
            Some(error) if is_error => return Err(sys::Error(Errno::from_raw(error.saturating_neg()))),
            _ => {}
        }
    }
}
