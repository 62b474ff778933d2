//! The systemd unit around a machine: `linux.cgroupsPath` as systemd's callers write it (`slice:prefix:name`), the
//! unit's own properties, those that annotations add, and the limits as properties.
//!
//! The limits are the ones that are written to the group's files when there is no systemd: one decision, told in two
//! languages. Names, defaults and conversions are those of runc, so that callers find the unit where they look for it.

mod text;

use super::error::{ConfigError, invalid, unsupported};
use super::operator::Operator;
use super::resources::Files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zbus::Variant;

/// Properties of a unit: name, value.
pub type Properties = Vec<(String, Variant<'static>)>;

/// A unit, by what it is called and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name, `PREFIX-NAME.scope`.
    pub name: String,
    /// The slice that it belongs to.
    pub slice: String,
    /// The container, for people who read lists of units.
    subject: String,
}

impl Unit {
    /// Reads `linux.cgroupsPath` of container `id`, if it has one.
    pub fn parse(path: Option<&Path>, id: &str) -> Result<Unit, ConfigError> {
        let field = "linux.cgroupsPath";
        let Some(path) = path else {
            let (name, slice) = (format!("{PREFIX}-{id}.scope"), USUAL_SLICE.to_owned());
            return Ok(Unit { name, slice, subject: id.to_owned() });
        };
        let parts: Vec<&str> = path.to_str().unwrap_or_default().split(':').collect();
        let &[slice, prefix, subject] = parts.as_slice() else {
            let expected = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups";
            return Err(invalid(field, format!("{expected}, got {path:?} instead")));
        };
        if subject.ends_with(".slice") {
            let instead =
                "a slice holds no processes of its own; a container needs a name that does not end in .slice";
            return Err(unsupported(field, instead));
        }
        let slice = if slice.is_empty() { USUAL_SLICE } else { slice };
        let unit =
            Unit { name: format!("{prefix}-{subject}.scope"), slice: slice.into(), subject: subject.into() };
        if unit.name.contains(['/', '\0']) {
            return Err(invalid(field, format!("{:?} is no name of a unit", unit.name)));
        }
        expand(slice).ok_or_else(|| invalid(field, format!("invalid slice name: {slice}")))?;
        Ok(unit)
    }

    /// Its group, below the hierarchy's top.
    pub fn directory(&self) -> PathBuf {
        expand(&self.slice).unwrap_or_default().join(&self.name)
    }

    /// What it is made with, around process `pid`. `added` is from annotations; the limits come last and win.
    pub fn properties(&self, pid: u32, added: &Properties, limits: Properties) -> Properties {
        let own = [
            ("Description", Variant::from(format!("husk container {}", self.subject))),
            ("Slice", Variant::from(self.slice.clone())),
            ("PIDs", Variant::from(vec![pid])),
            ("Delegate", Variant::from(true)),
            ("MemoryAccounting", Variant::from(true)),
            ("CPUAccounting", Variant::from(true)),
            ("IOAccounting", Variant::from(true)),
            ("TasksAccounting", Variant::from(true)),
            ("DefaultDependencies", Variant::from(false)),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(added.iter().cloned()).chain(limits).collect()
    }
}

/// `a-b.slice` lies in `a.slice`, and `-.slice` is the top.
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice").filter(|name| !name.contains('/'))?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let (mut path, mut prefix) = (PathBuf::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        path.push(format!("{prefix}{part}.slice"));
        prefix.push_str(part);
        prefix.push('-');
    }
    Some(path)
}

/// The versions of systemd from which on it has properties for these.
const FIRST_WITH_PERIODS: u32 = 242;
const FIRST_WITH_CPUSETS: u32 = 244;
const FIRST_WITH_IDLE: u32 = 252;

/// Whether it matters for these limits which version systemd is.
pub fn depends_on_version(files: &Files) -> bool {
    files.iter().any(|(name, _)| name == "cpu.max" || name == "cpu.idle" || name.starts_with("cpuset."))
}

/// Limits as properties, of what systemd of this version has properties for. The rest is for the group's files alone.
pub fn limits(files: &Files, version: u32) -> Properties {
    let mut found = Properties::new();
    for (name, value) in files {
        let mut put = |name: &str, value: Variant<'static>| found.push((name.to_owned(), value));
        let value = value.trim();
        let number = match value {
            "max" => Some(u64::MAX),
            digits => digits.parse().ok(),
        };
        match (name.as_str(), number) {
            ("memory.max", Some(bytes)) => put("MemoryMax", bytes.into()),
            ("memory.high", Some(bytes)) => put("MemoryHigh", bytes.into()),
            ("memory.low", Some(bytes)) => put("MemoryLow", bytes.into()),
            ("memory.min", Some(bytes)) => put("MemoryMin", bytes.into()),
            ("memory.swap.max", Some(bytes)) => put("MemorySwapMax", bytes.into()),
            ("pids.max", Some(tasks)) => put("TasksMax", tasks.into()),
            ("cpu.weight", Some(weight)) => put("CPUWeight", weight.into()),
            ("cpu.idle", Some(1)) if version >= FIRST_WITH_IDLE => put("CPUWeight", 0_u64.into()),
            // Without it systemd would put back its own when it is reloaded.
            ("io.weight", Some(weight)) => put("IOWeight", weight.into()),
            ("cpu.max", _) => {
                let (quota, period) = bandwidth(value);
                if version >= FIRST_WITH_PERIODS {
                    put("CPUQuotaPeriodUSec", period.into());
                }
                put("CPUQuotaPerSecUSec", quota.into());
            }
            ("cpuset.cpus", _) if version >= FIRST_WITH_CPUSETS => put("AllowedCPUs", bits(value).into()),
            ("cpuset.mems", _) if version >= FIRST_WITH_CPUSETS => {
                put("AllowedMemoryNodes", bits(value).into());
            }
            _ => {}
        }
    }
    found
}

/// `cpu.max` as microseconds of processor time in a second, and the period. systemd keeps whole per cent, so this rounds
/// up to them; the group's file then gets what was meant.
fn bandwidth(value: &str) -> (u64, u64) {
    let mut words = value.split_whitespace();
    let quota: Option<u64> = words.next().and_then(|word| word.parse().ok());
    let period: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(100_000);
    let per_second = quota.map_or(u64::MAX, |quota| {
        let exact = quota.saturating_mul(1_000_000).checked_div(period).unwrap_or(u64::MAX);
        exact.checked_next_multiple_of(10_000).unwrap_or(u64::MAX)
    });
    (per_second, period)
}

/// A list such as `0-2,7` as a set of bits, least significant byte first. Its numbers were checked when it was decided on;
/// what stands in `unified` and is no list sets none, and the kernel refuses it.
fn bits(list: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let numbers = first.trim().parse::<usize>().ok().zip(last.trim().parse::<usize>().ok());
        for number in numbers.filter(|(_, last)| *last < MOST_BITS).into_iter().flat_map(|(a, b)| a..=b) {
            if bytes.len() <= number / 8 {
                bytes.resize((number / 8).saturating_add(1), 0_u8);
            }
            if let Some(byte) = bytes.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    bytes
}

/// Properties that annotations add ([`ANNOTATION`] and a name, with a value in GVariant's text format).
///
/// Those that only say when and how the unit is stopped are taken from anyone, because callers set them; any other could
/// lift a limit or start a unit of the host, and needs the operator's word.
pub fn added(annotations: &BTreeMap<String, String>, operator: &Operator) -> Result<Properties, ConfigError> {
    let mut added = Properties::new();
    for (annotation, value) in annotations {
        let Some(name) = annotation.strip_prefix(ANNOTATION) else { continue };
        let field = format!("annotations.{annotation}");
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(invalid(field, "name incorrect: a property is three letters or more"));
        }
        if !HARMLESS.contains(&name) && !operator.container.annotations.contains(annotation) {
            return Err(unsupported(
                field,
                "is not allowed by the operator (container.annotations in husk's configuration file)",
            ));
        }
        let value = text::parse(value)
            .map_err(|reason| invalid(&field, format!("{value:?}: value parse error: {reason}")))?;
        added.push(
            match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase())) {
                Some(stem) => {
                    let value =
                        microseconds(&value).ok_or_else(|| invalid(&field, "is not a number of seconds"))?;
                    (format!("{stem}USec"), value.into())
                }
                None => (name.to_owned(), value),
            },
        );
    }
    Ok(added)
}

/// Seconds as microseconds: systemd's own properties are in those.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked to be in range
fn microseconds(value: &Variant<'_>) -> Option<u64> {
    let whole = |seconds: Option<u64>| seconds?.checked_mul(1_000_000);
    match value {
        Variant::U8(number) => whole(Some(u64::from(*number))),
        Variant::U16(number) => whole(Some(u64::from(*number))),
        Variant::U32(number) => whole(Some(u64::from(*number))),
        Variant::U64(number) => whole(Some(*number)),
        Variant::I16(number) => whole(u64::try_from(*number).ok()),
        Variant::I32(number) => whole(u64::try_from(*number).ok()),
        Variant::I64(number) => whole(u64::try_from(*number).ok()),
        Variant::F64(number) => {
            let number = *number * 1e6;
            (number >= 0.0 && number < u64::MAX as f64).then_some(number as u64)
        }
        _ => None,
    }
}

/// What annotations that name properties begin with.
pub const ANNOTATION: &str = "org.systemd.property.";
/// What a unit's name begins with when the bundle does not say.
const PREFIX: &str = "husk";
/// Where units go when the bundle does not say.
const USUAL_SLICE: &str = "system.slice";
/// More processors or memory nodes than any host has; what is above is refused where the limits are decided.
const MOST_BITS: usize = 65536;
/// What Podman and CRI-O set, and its like.
const HARMLESS: [&str; 11] = [
    "After",
    "Before",
    "CollectMode",
    "DefaultDependencies",
    "Description",
    "Documentation",
    "KillSignal",
    "SendSIGHUP",
    "SendSIGKILL",
    "TimeoutStopSec",
    "TimeoutStopUSec",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Unit, ConfigError> {
        Unit::parse(Some(Path::new(path)), "id")
    }

    #[test]
    fn a_path_becomes_the_unit_and_the_group_of_runc() {
        let table = [
            ("system.slice:docker:abc", "docker-abc.scope", "system.slice/docker-abc.scope"),
            (":runc:x", "runc-x.scope", "system.slice/runc-x.scope"),
            (
                "kubepods-besteffort-pod1.slice:cri-containerd:c",
                "cri-containerd-c.scope",
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-c.scope",
            ),
            ("-.slice:a:b", "a-b.scope", "a-b.scope"),
        ];
        for (path, name, directory) in table {
            let unit = parse(path).unwrap();
            assert_eq!((unit.name.as_str(), unit.directory()), (name, directory.into()), "{path}");
        }
        let usual = Unit::parse(None, "one").unwrap();
        assert_eq!((usual.name.as_str(), usual.slice.as_str()), ("husk-one.scope", "system.slice"));
    }

    #[test]
    fn what_is_no_unit_is_refused_in_the_words_of_runc() {
        for path in ["/docker/abc", "a:b", "a.slice:b:c:d"] {
            let error = parse(path).unwrap_err().to_string();
            let expected = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            );
            assert!(error.ends_with(&expected), "{error}");
        }
        for slice in ["x", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../x.slice"] {
            let error = parse(&format!("{slice}:p:n")).unwrap_err().to_string();
            assert!(error.ends_with(&format!("invalid slice name: {slice}")), "{error}");
        }
        for path in ["a.slice:../b:c", "a.slice:b:c/../../d", "a.slice:b:c.slice"] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn limits_are_told_in_systemds_units() {
        let files = |files: &[(&str, &str)]| -> Files {
            files.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let told = |given: &[(&str, &str)], version| -> Vec<String> {
            let limits = limits(&files(given), version);
            limits.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(
            told(&[("memory.max", "1048576"), ("memory.swap.max", "max"), ("pids.max", "328")], 257),
            ["MemoryMax=uint64 1048576", "MemorySwapMax=uint64 18446744073709551615", "TasksMax=uint64 328"]
        );
        let quota = [("cpu.max", "33333 100000")];
        assert_eq!(
            told(&quota, 257),
            ["CPUQuotaPeriodUSec=uint64 100000", "CPUQuotaPerSecUSec=uint64 340000"]
        );
        assert_eq!(told(&quota, 241), ["CPUQuotaPerSecUSec=uint64 340000"]);
        assert_eq!(
            told(&[("cpu.max", "max 50000")], 257),
            ["CPUQuotaPeriodUSec=uint64 50000", "CPUQuotaPerSecUSec=uint64 18446744073709551615"]
        );
        assert_eq!(told(&[("cpuset.cpus", "0-2,9")], 243), Vec::<String>::new());
        assert_eq!(bits("0-2,9"), [0b111, 0b10]);
        assert_eq!(told(&[("io.max", "8:0 rbps=1"), ("cpu.weight", "59")], 257), ["CPUWeight=uint64 59"]);
    }

    #[test]
    fn annotations_add_what_does_no_harm_and_the_rest_with_the_operators_word() {
        let one = |name: &str, value: &str, allowed: &[&str]| {
            let mut operator = Operator::default();
            operator.container.annotations = allowed.iter().map(ToString::to_string).collect();
            let given = BTreeMap::from([(format!("{ANNOTATION}{name}"), value.to_owned())]);
            added(&given, &operator).map(|mut found| found.pop().unwrap())
        };
        assert_eq!(one("TimeoutStopUSec", "uint64 5", &[]).unwrap().1, Variant::from(5_u64));
        assert_eq!(
            one("TimeoutStopSec", "1.5", &[]).unwrap(),
            ("TimeoutStopUSec".into(), Variant::from(1_500_000_u64))
        );
        assert_eq!(
            one("CollectMode", "'inactive-or-failed'", &[]).unwrap().1,
            Variant::from("inactive-or-failed")
        );
        let refused = one("MemoryMax", "uint64 5", &[]).unwrap_err().to_string();
        assert!(refused.contains("not allowed by the operator"), "{refused}");
        assert!(one("MemoryMax", "uint64 5", &["org.systemd.property.MemoryMax"]).is_ok());
        for (name, value) in
            [("X", "1"), ("Time out", "1"), ("After", "nothing"), ("TimeoutStopSec", "'soon'")]
        {
            assert!(one(name, value, &[]).is_err(), "{name}={value}");
        }
        let others = BTreeMap::from([("org.example".to_owned(), "x".to_owned())]);
        assert_eq!(added(&others, &Operator::default()).unwrap(), Properties::new());
    }
}
