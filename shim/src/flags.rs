//! The command line, as containerd gives it: Go's flags, then an action.

use crate::failure::Failure;
use std::ffi::OsString;
use std::path::PathBuf;

/// What containerd says to every shim.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Flags {
    /// Of containerd's namespaces, the container's.
    pub namespace: String,
    /// The container, or sandbox.
    pub id: String,
    /// containerd's own gRPC socket.
    pub address: String,
    /// containerd's program.
    pub publish_binary: String,
    /// Where the bundle is (for `delete`; otherwise we are in it).
    pub bundle: Option<PathBuf>,
    /// More in the log.
    pub debug: bool,
    socket: String,
    version: bool,
    info: bool,
    action: String,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a server, or find the one that is there.
    Start,
    /// Remove what is left of a container whose server is gone.
    Delete,
    /// Be the first process of a pod.
    Pause,
    /// Be the server.
    Serve,
    /// `-info`
    Info,
    /// `-v`
    Version,
}

impl Flags {
    /// Reads them: `-name value`, `-name=value`, with one dash or two.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Flags, Failure> {
        let mut flags = Flags::default();
        let mut words = words.map(|word| word.into_string());
        while let Some(word) = words.next() {
            let word = word.map_err(|_| Failure::invalid("an argument is not valid UTF-8"))?;
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                flags.action = word;
                break;
            };
            let (name, attached) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if let Some(switch) = flags.switch(name) {
                *switch = attached.is_none_or(|value| value != "false");
                continue;
            }
            let missing = || Failure::invalid(format!("flag needs an argument: -{name}"));
            let value = match attached {
                Some(value) => value,
                None => words.next().and_then(Result::ok).ok_or_else(missing)?,
            };
            flags.set(name, value)?;
        }
        Ok(flags)
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "debug" => Some(&mut self.debug),
            "v" | "version" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            _ => None,
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Failure> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "publish-binary" => self.publish_binary = value,
            "bundle" => self.bundle = Some(value.into()),
            "socket" => self.socket = value,
            _ => return Err(Failure::invalid(format!("flag provided but not defined: -{name}"))),
        }
        Ok(())
    }

    /// What is to be done.
    pub fn action(&self) -> Action {
        match self.action.as_str() {
            _ if self.version => Action::Version,
            _ if self.info => Action::Info,
            "start" => Action::Start,
            "delete" => Action::Delete,
            "pause" => Action::Pause,
            _ => Action::Serve,
        }
    }

    /// The socket of the server that this process is to be.
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// How the server's process is started.
    pub fn of_server(&self, socket: &str) -> Vec<String> {
        let mut words = vec![];
        let pairs = [
            ("-namespace", self.namespace.as_str()),
            ("-id", &self.id),
            ("-address", &self.address),
            ("-publish-binary", &self.publish_binary),
            ("-socket", socket),
        ];
        for (name, value) in pairs {
            words.extend([name.to_owned(), value.to_owned()]);
        }
        words.extend(self.debug.then(|| "-debug".to_owned()));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Flags, Failure> {
        Flags::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn flags_are_gos_and_what_starts_a_server_is_understood_by_it() {
        let given =
            ["-namespace", "k8s.io", "--id=one", "-debug", "-publish-binary", "", "-address", "/s", "start"];
        let flags = parse(&given).unwrap();
        assert_eq!(
            (flags.action(), flags.namespace.as_str(), flags.id.as_str()),
            (Action::Start, "k8s.io", "one")
        );
        let words = flags.of_server("/run/s/1");
        let server = Flags::parse(words.into_iter().map(OsString::from)).unwrap();
        assert_eq!((server.action(), server.socket(), server.debug), (Action::Serve, "/run/s/1", true));
        assert_eq!(server.address, "/s");
    }

    #[test]
    fn a_flag_without_its_value_and_an_unknown_one_are_refused() {
        assert!(parse(&["-id"]).unwrap_err().message.contains("-id"));
        assert!(parse(&["-colour", "red"]).unwrap_err().message.contains("-colour"));
        assert_eq!(parse(&["-info"]).unwrap().action(), Action::Info);
        assert_eq!(parse(&["-v"]).unwrap().action(), Action::Version);
        assert_eq!(parse(&["pause"]).unwrap().action(), Action::Pause);
    }
}
