//! systemd, as far as husk asks it for something: a unit around a process, with limits, and its end.
//!
//! Asked over the system's bus, and where there is none (a small host, an early boot) over systemd's own socket, which
//! serves root alone. What is asked for is a job; it is done when systemd says that it has gone from its queue.

use super::bus::{Bus, BusError, Message, Method};
use std::path::Path;
use std::time::Duration;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

/// What a unit is to have: name, value.
pub type Properties = Vec<(String, Variant<'static>)>;

/// Why systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// It cannot be spoken to.
    #[error("failed to connect to dbus")]
    Unreachable(#[source] BusError),
    /// The unit was refused.
    #[error("unable to start unit {unit:?}")]
    Start {
        /// Which.
        unit: String,
        /// In systemd's words.
        #[source]
        source: BusError,
    },
    /// Its job ended in another way than was hoped for.
    #[error("error creating systemd unit `{unit}`: got `{result}`")]
    NotStarted {
        /// Which.
        unit: String,
        /// What systemd says of the job.
        result: String,
    },
    /// It could not be stopped.
    #[error("unable to stop unit {unit:?}")]
    Stop {
        /// Which.
        unit: String,
        /// Why.
        #[source]
        source: BusError,
    },
    /// Its properties could not be changed.
    #[error("unable to set unit properties")]
    Change(#[source] BusError),
    /// It does not say which version it is.
    #[error("unable to get systemd version")]
    Version(#[source] BusError),
}

/// Whether this host's init is systemd (sd_booted(3)).
pub fn is_running() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|found| found.is_dir())
}

/// A connection to it.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
    /// Whether it has been told that we want to hear of jobs.
    listens: bool,
    /// On its own socket everyone hears of everything, unasked.
    own_socket: bool,
}

impl Systemd {
    /// Connects.
    pub fn connect() -> Result<Systemd, SystemdError> {
        let on_bus = Bus::open(Path::new(SYSTEM_BUS), PATIENCE).and_then(|mut bus| {
            let hello = bus.call(bus_method("Hello"), &())?;
            bus.answer(hello)?;
            Ok(bus)
        });
        match on_bus {
            Ok(bus) => Ok(Systemd { bus, listens: false, own_socket: false }),
            Err(error) => match Bus::open(Path::new(OWN_SOCKET), PATIENCE) {
                Ok(bus) => Ok(Systemd { bus, listens: false, own_socket: true }),
                // The bus is what should be there.
                Err(_) => Err(SystemdError::Unreachable(error)),
            },
        }
    }

    /// Its version: the number that it begins with.
    pub fn version(&mut self) -> Result<u32, SystemdError> {
        let get = Method { interface: "org.freedesktop.DBus.Properties", ..manager("Get") };
        let version = self
            .bus
            .call(get, &(MANAGER, "Version"))
            .and_then(|serial| self.bus.answer(serial))
            .and_then(|reply| arguments::<OwnedVariant>(&reply))
            .map_err(SystemdError::Version)?;
        let Variant::Str(text) = &*version else {
            return Err(SystemdError::Version(BusError::Form("the version is no text".into())));
        };
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| SystemdError::Version(BusError::Form(format!("version {text:?}"))))
    }

    /// Makes a unit that lives as long as its processes, and waits until it is there. If there is one of this name that
    /// has failed, it is forgotten.
    pub fn start_transient(&mut self, unit: &str, properties: &Properties) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Start { unit: unit.to_owned(), source };
        let result = match self.try_start(unit, properties) {
            Err(BusError::Refused { name, .. }) if name == UNIT_EXISTS => {
                self.reset_failed(unit);
                self.try_start(unit, properties)
            }
            other => other,
        };
        match result.map_err(failed)? {
            result if result == DONE => Ok(()),
            result => {
                self.reset_failed(unit);
                Err(SystemdError::NotStarted { unit: unit.to_owned(), result })
            }
        }
    }

    fn try_start(&mut self, unit: &str, properties: &Properties) -> Result<String, BusError> {
        let given: Vec<(&str, &Variant<'_>)> =
            properties.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let others: Vec<(&str, Vec<(&str, &Variant<'_>)>)> = Vec::new();
        self.job("StartTransientUnit", &(unit, REPLACE, given, others))
    }

    /// Ends a unit with all that is in it, and waits until it has gone. Not an error if there is none.
    pub fn stop(&mut self, unit: &str) -> Result<(), SystemdError> {
        let stopped = match self.job("StopUnit", &(unit, REPLACE)) {
            Err(BusError::Refused { name, .. }) if name == NO_SUCH_UNIT => Ok(()),
            other => other.map(drop),
        };
        // One that failed would stay to be looked at.
        self.reset_failed(unit);
        stopped.map_err(|source| SystemdError::Stop { unit: unit.to_owned(), source })
    }

    /// Changes a unit until it ends.
    pub fn set_properties(&mut self, unit: &str, properties: &Properties) -> Result<(), SystemdError> {
        let given: Vec<(&str, &Variant<'_>)> =
            properties.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let set = self.bus.call(manager("SetUnitProperties"), &(unit, true, given));
        set.and_then(|serial| self.bus.answer(serial)).map(drop).map_err(SystemdError::Change)
    }

    /// Most often there is nothing to forget, and that is no matter.
    fn reset_failed(&mut self, unit: &str) {
        let asked = self.bus.call(manager("ResetFailedUnit"), &(unit,));
        if let Err(error) = asked.and_then(|serial| self.bus.answer(serial)) {
            tracing::debug!(unit, %error, "no failed unit was forgotten");
        }
    }

    /// Has a job done, and waits for its end: what came of it.
    fn job<B>(&mut self, member: &str, arguments_of_call: &B) -> Result<String, BusError>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.listen()?;
        let serial = self.bus.call(manager(member), arguments_of_call)?;
        let job: OwnedObjectPath = arguments(&self.bus.answer(serial)?)?;
        let of_job = |message: &Message| message.arguments::<JobRemoved>().is_ok_and(|it| it.1 == job);
        let removed = self.bus.signal("org.freedesktop.systemd1.Manager.JobRemoved", of_job)?;
        Ok(arguments::<JobRemoved>(&removed)?.3)
    }

    fn listen(&mut self) -> Result<(), BusError> {
        if self.listens || self.own_socket {
            return Ok(());
        }
        // Neither waits for the other.
        let matched = self.bus.call(bus_method("AddMatch"), &(JOB_REMOVED,))?;
        let subscribed = self.bus.call(manager("Subscribe"), &())?;
        self.bus.answer(matched)?;
        self.bus.answer(subscribed)?;
        self.listens = true;
        Ok(())
    }
}

/// Number, object, unit, result.
type JobRemoved = (u32, OwnedObjectPath, String, String);

fn arguments<T: serde::de::DeserializeOwned + zbus::Type>(message: &Message) -> Result<T, BusError> {
    message.arguments().map_err(|error| BusError::Form(error.to_string()))
}

fn bus_method(member: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
    }
}

fn manager(member: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: MANAGER,
        member,
    }
}

/// How long a conversation may take, jobs included: as long as runc waits.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const OWN_SOCKET: &str = "/run/systemd/private";
// org.freedesktop.systemd1(5)
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const REPLACE: &str = "replace";
const DONE: &str = "done";
const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                           interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
