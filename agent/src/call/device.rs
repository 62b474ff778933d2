//! AttachDevice, and what it is to attach one.
//!
//! A device that the host puts into a slot after boot makes no noise: the kernel looked at the slot once, found it vacant,
//! and looks again when its driver is told to bind it. That may take as long as the driver takes: so it is done in
//! helpers.

use super::{Outcome, refused};
use crate::agent::Agent;
use crate::{job, start};
use husk_protocol::{Answer, Failure};
use std::fs;
use std::path::{Path, PathBuf};

const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

/// Binds the driver.
pub fn attach(agent: &mut Agent, request: u32, slot: u32) -> Outcome {
    start::need_sysfs().map_err(|error| refused("mount sysfs", error))?;
    job::start(agent, Some(request), move || bind(slot).map(|()| Answer::Done));
    Ok(None)
}

/// Has the driver look at the slot again, unless it has the device.
pub fn bind(slot: u32) -> Result<(), Failure> {
    if is_bound(slot) {
        return Ok(());
    }
    let done = fs::write(Path::new(DRIVER).join("bind"), name(slot));
    done.map_err(|error| refused(&format!("bind the device in slot {slot}"), error))
}

/// Has the driver let go of the device, if it has it.
pub fn unbind(slot: u32) -> Result<(), Failure> {
    if !is_bound(slot) {
        return Ok(());
    }
    let done = fs::write(Path::new(DRIVER).join("unbind"), name(slot));
    done.map_err(|error| refused(&format!("let go of the device in slot {slot}"), error))
}

/// Where sysfs shows the slot's device.
pub fn directory(slot: u32) -> PathBuf {
    Path::new("/sys/bus/platform/devices").join(name(slot))
}

fn is_bound(slot: u32) -> bool {
    directory(slot).join("driver").exists()
}

fn name(slot: u32) -> String {
    format!("virtio-mmio.{slot}")
}
