//! The process that a container gets on the host, while it is being made: start it, give it its order, hear its reports. It
//! is the container's machine, or stands for the container in its sandbox's.

use super::error::ContainerError;
use crate::host::pidfd::PidFd;
use crate::host::proc;
use crate::machine::control::client::PATIENCE;
use crate::machine::control::wire::{self, WireError};
use crate::machine::order::{self, Report};
use crate::process::spawn;
use husk_protocol::ContainerKey;
use serde::Serialize;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// How long it may take to its first report: it sets up namespaces and opens files, and waits for nobody.
const TO_PREPARE: Duration = Duration::from_secs(30);
/// How long it may take beyond the guest's own boot time limit.
const TO_CREATE: Duration = Duration::from_secs(60);
/// What is waited for in the end.
const MADE: &str = "that the container is made";
/// How long a process that we have killed may take to end.
const TO_END: Duration = Duration::from_secs(10);

/// The process, and our end of its descriptor 3. Dropped before [`MachineProcess::leave`], it is killed and reaped.
#[derive(Debug)]
pub struct MachineProcess {
    child: Option<Child>,
    parent_end: UnixStream,
    /// Its pid.
    pub pid: i32,
    /// When it started.
    pub start_time: u64,
}

impl MachineProcess {
    /// Starts it from `program`, a `husk`. Our standard descriptors become the container's if it is to `inherit` them.
    pub fn start(program: &Path, inherit: bool) -> Result<MachineProcess, ContainerError> {
        Self::start_as("machine", program, inherit)
    }

    /// The same of a process that is not a machine, but reports like one.
    pub fn start_as(verb: &str, program: &Path, inherit: bool) -> Result<MachineProcess, ContainerError> {
        let failed = super::error::host("start the machine process", program);
        let started = UnixStream::pair().and_then(|(ours, theirs)| {
            spawn::husk(program, verb, theirs.into(), inherit).map(|child| (child, ours))
        });
        let (child, parent_end) = started.map_err(failed)?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let start_time = proc::Stat::read(pid).map_or(0, |stat| stat.start_time);
        Ok(MachineProcess { child: Some(child), parent_end, pid, start_time })
    }

    /// Gives it its order and waits until it is prepared.
    pub fn prepare<T: Serialize>(
        &mut self,
        order: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ContainerError> {
        match wire::send_frame(&self.parent_end, order, descriptors) {
            // It may have said why it is gone.
            Ok(()) | Err(WireError::Closed) => {}
            Err(error) => return Err(of_wire(error)),
        }
        match self.hear("that it is prepared", TO_PREPARE)? {
            Report::Prepared => Ok(()),
            _ => Err(ContainerError::MachineSilent { what: "that it is prepared" }),
        }
    }

    /// Lets it go on after the hooks, and waits until the container is made; whether that was a cold start.
    pub fn create(&mut self, boot_timeout: Duration) -> Result<bool, ContainerError> {
        match self.proceed(boot_timeout.saturating_add(TO_CREATE))? {
            Report::Created { cold } => Ok(cold),
            _ => Err(ContainerError::MachineSilent { what: MADE }),
        }
    }

    /// The same of a container in its sandbox's machine; its number there.
    pub fn join(&mut self) -> Result<ContainerKey, ContainerError> {
        match self.proceed(PATIENCE)? {
            Report::Joined(container) => Ok(container),
            _ => Err(ContainerError::MachineSilent { what: MADE }),
        }
    }

    fn proceed(&mut self, within: Duration) -> Result<Report, ContainerError> {
        match order::send_proceed(&self.parent_end) {
            Ok(()) | Err(WireError::Closed) => {}
            Err(error) => return Err(of_wire(error)),
        }
        self.hear(MADE, within)
    }

    /// Why it is gone already, if it is: whatever failed meanwhile with the process that it was failed because of that.
    pub fn gone(&mut self) -> Option<ContainerError> {
        // No time at all would be over before anything is looked at.
        match order::receive_report(&self.parent_end, Some(Duration::from_millis(1))) {
            Ok(Report::Failed(failed)) => Some(ContainerError::Machine(failed)),
            Err(WireError::Closed) => Some(ContainerError::MachineDied { how: self.end() }),
            _ => None,
        }
    }

    /// Leaves it to itself: the container is made. It is reaped by whoever is its parent when we have gone.
    pub fn leave(mut self) {
        self.child = None;
    }

    fn hear(&mut self, what: &'static str, within: Duration) -> Result<Report, ContainerError> {
        match order::receive_report(&self.parent_end, Some(within)) {
            Ok(Report::Failed(failed)) => Err(ContainerError::Machine(failed)),
            Ok(report) => Ok(report),
            Err(WireError::Closed) => Err(ContainerError::MachineDied { how: self.end() }),
            Err(WireError::TimedOut) => Err(ContainerError::MachineSilent { what }),
            Err(error) => Err(of_wire(error)),
        }
    }

    /// Ends it, if it has not ended, reaps it, and says how it ended.
    fn end(&mut self) -> String {
        let Some(mut child) = self.child.take() else { return "left alone".into() };
        let _ = self.parent_end.shutdown(std::net::Shutdown::Both);
        // It ends by itself when its parent is gone, and may be writing back what the guest had written. But it is not
        // waited for without a bound.
        let held = PidFd::open(self.pid);
        let ended = held.as_ref().is_ok_and(|held| held.wait(Duration::from_secs(2)).unwrap_or(false));
        if !ended {
            let _ = child.kill();
            let _ = held.map(|held| held.wait(TO_END));
        }
        match child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, signal) => format!("signal {}", signal.unwrap_or(0)),
            },
            Err(error) => crate::error::plain(&error),
        }
    }
}

impl Drop for MachineProcess {
    fn drop(&mut self) {
        self.end();
    }
}

fn of_wire(error: WireError) -> ContainerError {
    ContainerError::Control(crate::machine::control::client::ClientError::Wire(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::machine::order::Failed;
    use std::os::unix::fs::PermissionsExt;

    /// A machine process that does what a shell script says.
    fn machine(directory: &Path, script: &str) -> MachineProcess {
        let program = directory.join(format!("program-{}", script.len()));
        std::fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", directory.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        MachineProcess::start(&program, false).unwrap()
    }

    #[test]
    fn a_machine_that_is_gone_says_why_and_one_that_lives_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let failed = Failed { kind: ErrorKind::Guest, message: "no guest".into() };
        let body = serde_json::to_vec(&Report::Failed(failed)).unwrap();
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        std::fs::write(directory.path().join("frame"), frame).unwrap();
        let mut cases = [
            machine(directory.path(), "cat frame >&3; exit 1"),
            machine(directory.path(), "exit 7"),
            machine(directory.path(), "exec sleep 1000"),
        ];
        for ended in &cases[..2] {
            assert!(PidFd::open(ended.pid).unwrap().wait(Duration::from_secs(10)).unwrap());
        }
        let said = cases.each_mut().map(|machine| machine.gone().map(|error| error.to_string()));
        assert_eq!(said[0].as_deref(), Some("no guest"));
        assert!(said[1].as_deref().is_some_and(|text| text.contains("exit status 7")), "{said:?}");
        assert_eq!(said[2], None);
    }
}
