//! What kubelet wants of a pod's sandbox: the fields of `runtime.v1.PodSandboxConfig` that a machine is made by. The
//! message is in no crate of containerd's; its fields are known by their numbers, and those that are not named here pass.

use crate::failure::Failure;
use protobuf::CodedInputStream;
use protobuf::well_known_types::any::Any;
use std::collections::BTreeMap;

/// The message's name.
pub const NAME: &str = "runtime.v1.PodSandboxConfig";
/// `NamespaceMode`: the host's.
const NODE: u64 = 2;

/// The fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PodConfig {
    /// The pod's name for itself.
    pub hostname: String,
    /// Lines for its resolv.conf; none if it is to have the host's.
    pub resolver: Vec<String>,
    /// The pod's control group.
    pub cgroup_parent: String,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Whether it wants the host's network.
    pub host_network: bool,
    /// Whether it wants a user namespace.
    pub user_namespace: bool,
    /// What its containers need together.
    pub needs: Needs,
}

/// `LinuxContainerResources`. 0: not said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Microseconds ...
    pub cpu_period: i64,
    /// ... in which it may use so many.
    pub cpu_quota: i64,
    /// Bytes.
    pub memory: i64,
}

impl PodConfig {
    /// Reads it. None was given: a pod that asks for nothing.
    pub fn read(any: Option<&Any>) -> Result<PodConfig, Failure> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(PodConfig::default()) };
        if any.type_url.rsplit('/').next() != Some(NAME) {
            return Err(Failure::invalid(format!(
                "a sandbox is made by a {NAME}, not by a {}",
                any.type_url
            )));
        }
        let parsed = PodConfig::parse(&any.value);
        parsed.map_err(|error| Failure::invalid(format!("{NAME}: {error}")))
    }

    fn parse(bytes: &[u8]) -> protobuf::Result<PodConfig> {
        let mut config = PodConfig::default();
        for (number, value) in fields(bytes)? {
            match number {
                2 => config.hostname = value.text()?,
                4 => config.resolver = resolver(&value.bytes)?,
                8 => config.linux(&value.bytes)?,
                _ => {}
            }
        }
        Ok(config)
    }

    /// `LinuxPodSandboxConfig`.
    fn linux(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        for (number, value) in fields(bytes)? {
            match number {
                1 => self.cgroup_parent = value.text()?,
                2 => self.security(&value.bytes)?,
                3 => {
                    let entry = fields(&value.bytes)?;
                    let part = |wanted| {
                        let found = entry.iter().rev().find(|(number, _)| *number == wanted);
                        found.map_or(Ok(String::new()), |(_, value)| value.text())
                    };
                    self.sysctls.insert(part(1)?, part(2)?);
                }
                5 => self.needs = needs(&value.bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `LinuxSandboxSecurityContext`, of which its `NamespaceOption`.
    fn security(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        for (_, namespaces) in fields(bytes)?.into_iter().filter(|(number, _)| *number == 1) {
            for (number, value) in fields(&namespaces.bytes)? {
                match number {
                    1 => self.host_network = value.number == NODE,
                    5 => {
                        let mode = fields(&value.bytes)?.into_iter().rfind(|(number, _)| *number == 1);
                        // What is 0 is not sent: the pod's own.
                        self.user_namespace = mode.map_or(0, |(_, mode)| mode.number) != NODE;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// `DNSConfig`, as the lines of a resolv.conf.
fn resolver(bytes: &[u8]) -> protobuf::Result<Vec<String>> {
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for (number, value) in fields(bytes)? {
        match number {
            1 => servers.push(format!("nameserver {}", value.text()?)),
            2 => searches.push(value.text()?),
            3 => options.push(value.text()?),
            _ => {}
        }
    }
    let words = |word: &str, given: &[String]| match given {
        [] => None,
        given => Some(format!("{word} {}", given.join(" "))),
    };
    let around = [words("search", &searches), words("options", &options)];
    Ok(servers.into_iter().chain(around.into_iter().flatten()).collect())
}

fn needs(bytes: &[u8]) -> protobuf::Result<Needs> {
    let mut needs = Needs::default();
    for (number, value) in fields(bytes)? {
        // Two's complement: a negative number means no limit.
        let signed = value.number.cast_signed();
        match number {
            1 => needs.cpu_period = signed,
            2 => needs.cpu_quota = signed,
            4 => needs.memory = signed,
            _ => {}
        }
    }
    Ok(needs)
}

/// A field's value: the one or the other.
#[derive(Default)]
struct Value {
    number: u64,
    bytes: Vec<u8>,
}

impl Value {
    fn text(&self) -> protobuf::Result<String> {
        let text = std::str::from_utf8(&self.bytes);
        text.map(str::to_owned).map_err(|error| std::io::Error::other(error).into())
    }
}

/// The fields of a message, in order.
fn fields(bytes: &[u8]) -> protobuf::Result<Vec<(u32, Value)>> {
    let mut stream = CodedInputStream::from_bytes(bytes);
    let mut found = Vec::new();
    while let Some(tag) = stream.read_raw_tag_or_eof()? {
        let mut value = Value::default();
        match tag & 7 {
            0 => value.number = stream.read_raw_varint64()?,
            2 => value.bytes = stream.read_bytes()?,
            _ => protobuf::rt::skip_field_for_tag(tag, &mut stream)?,
        }
        found.push((tag >> 3, value));
    }
    Ok(found)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A field that holds bytes.
    pub fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let bytes = bytes.as_ref();
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    pub fn any(value: Vec<u8>) -> Any {
        Any { type_url: format!("type.googleapis.com/{NAME}"), value, ..Default::default() }
    }

    #[test]
    fn what_a_machine_is_made_by_is_read_and_the_rest_passes() {
        let dns = [field(1, "10.0.0.2"), field(1, "10.0.0.3"), field(2, "a.b"), field(3, "ndots:5")].concat();
        let sysctl = [field(1, "net.core.somaxconn"), field(2, "99")].concat();
        // The host's users, as kubelet says it of most pods; a quota of -1, a period, a limit.
        let namespaces = [vec![8, 0], vec![16, 1], field(5, [8, 2])].concat();
        let mut needs = vec![8, 0xa0, 0x8d, 0x06, 16];
        needs.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 32, 0x80, 0x20]);
        let linux = [field(1, "/pods/x"), field(2, field(1, namespaces)), field(3, sysctl), field(5, needs)];
        let message = [field(1, field(1, "name")), field(2, "host"), field(4, dns), field(8, linux.concat())];
        let config = PodConfig::read(Some(&any(message.concat()))).unwrap();
        let expected = PodConfig {
            hostname: "host".into(),
            resolver: ["nameserver 10.0.0.2", "nameserver 10.0.0.3", "search a.b", "options ndots:5"]
                .map(str::to_owned)
                .into(),
            cgroup_parent: "/pods/x".into(),
            sysctls: [("net.core.somaxconn".to_owned(), "99".to_owned())].into(),
            needs: Needs { cpu_period: 100_000, cpu_quota: -1, memory: 4096 },
            ..PodConfig::default()
        };
        assert_eq!(config, expected);
        assert_eq!(PodConfig::read(None).unwrap(), PodConfig::default());
    }

    #[test]
    fn the_hosts_network_and_users_of_its_own_are_noticed() {
        let of = |namespaces: Vec<u8>| {
            let message = field(8, field(2, field(1, namespaces)));
            let config = PodConfig::read(Some(&any(message))).unwrap();
            (config.host_network, config.user_namespace)
        };
        assert_eq!(of(vec![8, 2]), (true, false));
        assert_eq!(of(field(5, field(2, [8, 1]))), (false, true));
    }

    #[test]
    fn what_is_no_such_message_is_refused() {
        let strange = Any { type_url: "io.example.Pod".into(), ..Default::default() };
        assert!(PodConfig::read(Some(&strange)).unwrap_err().message.contains("io.example.Pod"));
        for wrong in [vec![0xff], vec![0x12, 9, b'x'], field(2, [0xff]), field(8, [0x12, 9])] {
            let failure = PodConfig::read(Some(&any(wrong))).unwrap_err();
            assert_eq!(failure.code, ttrpc::Code::INVALID_ARGUMENT);
        }
    }
}
