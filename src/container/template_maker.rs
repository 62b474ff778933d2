//! Templates that are made of themselves: after a cold start, where the operator wants that, beside the container.
//!
//! ```text
//!   husk create: cold start -> container made -> notes the attempt -> template-maker (hidden verb, a session of its own)
//!        | gone                                                            | make, first start, what failed is noted
//! ```
//! The start that finds no template is a cold one and does not wait; those after it have one. Makers do not meet: whoever
//! comes second finds the directory locked. What cannot be made is not tried at each start: an attempt counts for a while.

use super::template;
use crate::config::operator::{Operator, Templates};
use crate::error::chain;
use crate::machine::control::wire;
use crate::machine::order::MachineConfig;
use crate::machine::template::EXTENSION;
use crate::process::spawn;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The hidden verb.
pub const VERB: &str = "template-maker";

/// What to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MakerOrder {
    directory: PathBuf,
    config: MachineConfig,
}

/// A machine like `started` has booted cold. If the operator wants it, `program` (a `husk`) makes a template for the next one.
/// The start is made, whatever comes of this.
pub fn make_for_later(program: &Path, operator: &Operator, started: &MachineConfig) {
    if operator.machine.templates != Templates::Make {
        return;
    }
    let directory = operator.machine.template_directory.clone();
    // What is more is plugged: one size will do for all above it.
    let usual = template::machine(operator, Some(started.vcpus), None);
    let memory_mib = usual.memory_mib.min(started.memory_mib);
    let order = MakerOrder { directory, config: MachineConfig { memory_mib, ..usual } };
    match order.is_due().and_then(|due| if due { order.give(program) } else { Ok(()) }) {
        Ok(()) => {}
        Err(error) => tracing::warn!("no template is made: {}", chain(&error)),
    }
}

impl MakerOrder {
    /// Notes an attempt, unless there was one lately or there are too many templates.
    fn is_due(&self) -> io::Result<bool> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let attempt = template::attempt(&self.directory, &self.config);
        let last = fs::metadata(&attempt).and_then(|metadata| metadata.modified());
        let elapsed = |moment: SystemTime| SystemTime::now().duration_since(moment).unwrap_or_default();
        if last.is_ok_and(|moment| elapsed(moment) < AGAIN) || templates(&self.directory)? >= MOST {
            return Ok(false);
        }
        fs::write(attempt, "")?;
        Ok(true)
    }

    fn give(&self, program: &Path) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut maker = spawn::husk(program, VERB, theirs.into(), false)?;
        wire::send_frame(&ours, self, &[]).map_err(io::Error::other)?;
        // For callers that go on and would keep it as a zombie.
        std::thread::Builder::new().spawn(move || maker.wait()).map(drop)
    }

    /// The maker's life.
    pub fn serve(parent: &UnixStream, example: &str) -> Result<(), String> {
        // A terminal's signals are for the command that has started us.
        let _ = nix::unistd::setsid();
        let (order, _) = wire::receive_frame::<MakerOrder>(parent, None).map_err(|error| chain(&error))?;
        let made = template::create(&order.directory, &order.config, example);
        let failed = made.and_then(|made| made.not_tried.map_or(Ok(()), Err));
        if let Err(reason) = &failed {
            // For `husk template status`; there is nobody else to tell.
            let _ = fs::write(template::attempt(&order.directory, &order.config), reason);
        }
        failed
    }
}

fn templates(directory: &Path) -> io::Result<usize> {
    let is_one = |path: PathBuf| path.extension().is_some_and(|extension| extension == EXTENSION);
    Ok(fs::read_dir(directory)?.flatten().filter(|entry| is_one(entry.path())).count())
}

/// A failed attempt is not repeated for so long.
const AGAIN: Duration = Duration::from_secs(600);
/// Each takes some 30 MiB of the disk. Who uses more sizes makes their templates by hand.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_counts_for_a_while_and_there_are_not_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::default();
        operator.machine.template_directory = directory.path().join("new");
        let config = template::machine(&operator, None, None);
        let order = MakerOrder { directory: operator.machine.template_directory, config };
        assert!(order.is_due().unwrap());
        assert!(!order.is_due().unwrap());
        let long_ago = SystemTime::now().checked_sub(AGAIN).unwrap();
        let attempt = template::attempt(&order.directory, &order.config);
        fs::File::options().write(true).open(&attempt).unwrap().set_modified(long_ago).unwrap();
        for number in 0..MOST {
            fs::write(order.directory.join(format!("1x{number}.{EXTENSION}")), "").unwrap();
        }
        assert!(!order.is_due().unwrap());
        fs::remove_file(order.directory.join(format!("1x0.{EXTENSION}"))).unwrap();
        assert!(order.is_due().unwrap());
    }

    #[test]
    fn nothing_is_begun_that_the_operator_does_not_want() {
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::default();
        operator.machine.template_directory = directory.path().join("new");
        let config = template::machine(&operator, None, None);
        for templates in [Templates::Never, Templates::Use] {
            operator.machine.templates = templates;
            make_for_later(Path::new("/no/such/program"), &operator, &config);
            assert!(!operator.machine.template_directory.exists());
        }
    }
}
