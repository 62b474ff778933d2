//! A specification with every field that husk honours, and what becomes of it when one of them is spoilt: an error that
//! names the field, never a panic.

use crate::fields::decide_with;
use crate::support::config;
use husk::config::operator::{Operator, SecurityLabels};
use serde_json::{Value, json};

/// Every field that is honoured, each with a value that is fine.
fn every_field() -> Value {
    let mut config = config();
    config["hostname"] = json!("box");
    config["domainname"] = json!("example");
    config["annotations"] = json!({"a": "b"});
    config["root"]["readonly"] = json!(true);
    config["process"] = json!({
        "terminal": true, "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
        "args": ["true"], "env": ["PATH=/bin"], "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"],
            "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
        "noNewPrivileges": true, "apparmorProfile": "profile", "oomScoreAdj": 5, "selinuxLabel": "label",
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "priority": 0, "flags": ["SCHED_RESET_ON_FORK"],
            "runtime": 0, "deadline": 0, "period": 0},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
    });
    config["mounts"] =
        json!([{"destination": "/d", "type": "bind", "source": "/srv/d", "options": ["rbind", "ro"]}]);
    let hook = json!([{"path": "/bin/a", "args": ["a"], "env": ["A=b"], "timeout": 5}]);
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    config["hooks"] =
        kinds.iter().map(|kind| ((*kind).to_owned(), hook.clone())).collect::<serde_json::Map<_, _>>().into();
    let linux = &mut config["linux"];
    linux["namespaces"].as_array_mut().unwrap().extend([
        json!({"type": "user"}),
        json!({"type": "time"}),
        json!({"type": "cgroup"}),
    ]);
    linux["namespaces"][1]["path"] = json!("/run/netns/one");
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    linux["timeOffsets"] = json!({"monotonic": {"secs": 1, "nanosecs": 2}});
    linux["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}]);
    linux["cgroupsPath"] = json!("/pods/one");
    linux["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    linux["maskedPaths"] = json!(["/proc/kcore"]);
    linux["readonlyPaths"] = json!(["/proc/sys"]);
    linux["rootfsPropagation"] = json!("rslave");
    linux["mountLabel"] = json!("label");
    linux["personality"] = json!({"domain": "LINUX32", "flags": []});
    linux["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2,
            "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}]});
    linux["resources"] = json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "memory": {"limit": 134_217_728, "reservation": 1000, "swap": 268_435_456, "disableOOMKiller": false, "useHierarchy": true,
            "checkBeforeUpdate": false},
        "cpu": {"shares": 512, "quota": 50000, "burst": 100, "period": 100_000, "cpus": "0", "mems": "0", "idle": 0},
        "pids": {"limit": 100},
        "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1000}],
        "unified": {"memory.high": "1000000"},
    });
    config
}

fn operator() -> Operator {
    let mut operator = Operator::default();
    operator.container.security_labels = SecurityLabels::Ignore;
    operator
}

/// What becomes of `config` with this value at a JSON pointer.
fn spoilt(config: &Value, pointer: &str, value: &Value) -> Result<(), String> {
    let mut config = config.clone();
    *config.pointer_mut(pointer).unwrap() = value.clone();
    decide_with(&config, &operator()).map(drop)
}

/// `/linux/devices/0/path` as errors name it: `linux.devices[0].path`.
fn named(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |name, part| match part.parse::<usize>() {
        Ok(index) => format!("{name}[{index}]"),
        Err(_) if name.is_empty() => part.to_owned(),
        Err(_) => format!("{name}.{part}"),
    })
}

/// Every place in it, but for the whole.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut one = |key: String, value: &Value| {
        let place = format!("{at}/{key}");
        found.push(place.clone());
        places(value, &place, found);
    };
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| one(key.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(key, value)| one(key.to_string(), value)),
        _ => {}
    }
}

/// A value of each type.
fn of_each_type() -> [Value; 5] {
    [json!(true), json!(-7.5), json!("\u{1}nonsense"), json!([7.5]), json!({"x": {"y": []}})]
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

#[test]
fn the_whole_specification_is_fine_until_it_is_spoilt() {
    decide_with(&every_field(), &operator()).unwrap();
}

#[test]
fn a_value_of_a_wrong_type_is_an_error_that_names_its_field() {
    let config = every_field();
    let mut pointers = Vec::new();
    places(&config, "", &mut pointers);
    assert!(pointers.len() > 150, "{}", pointers.len());
    let mut wrong = Vec::new();
    for pointer in &pointers {
        let value = config.pointer(pointer).unwrap();
        for other in of_each_type().iter().filter(|other| kind(other) != kind(value)) {
            match spoilt(&config, pointer, other) {
                Ok(()) => wrong.push(format!("{pointer} = {other}: accepted")),
                Err(error) if error.contains(&named(pointer)) => {}
                Err(error) => wrong.push(format!("{pointer} = {other}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), pointers.len(), wrong.join("\n"));
}

#[test]
fn a_list_where_an_object_is_due_is_an_error_that_names_it() {
    let config = every_field();
    let mut pointers = Vec::new();
    places(&config, "", &mut pointers);
    let objects: Vec<&String> =
        pointers.iter().filter(|pointer| config.pointer(pointer).unwrap().is_object()).collect();
    assert!(objects.len() > 40, "{}", objects.len());
    let mut wrong = Vec::new();
    for pointer in objects {
        let fields = config.pointer(pointer).unwrap().as_object().unwrap();
        // The second could be read as its fields, one after the other.
        for list in [json!([]), fields.values().cloned().collect(), json!([[]]), json!([null])] {
            match spoilt(&config, pointer, &list) {
                Err(error) if error.contains(&named(pointer)) => {}
                other => wrong.push(format!("{pointer} = {list}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where any number that its type holds is fine: what the kernel makes of it is the kernel's to say.
const ANY_NUMBER: [&str; 0] = [];

#[test]
fn a_number_that_is_out_of_range_is_an_error_that_names_its_field() {
    let config = every_field();
    let mut pointers = Vec::new();
    places(&config, "", &mut pointers);
    let numbers: Vec<&String> =
        pointers.iter().filter(|pointer| config.pointer(pointer).unwrap().is_number()).collect();
    assert!(numbers.len() > 40, "{}", numbers.len());
    let mut wrong = Vec::new();
    for pointer in numbers.into_iter().filter(|pointer| !ANY_NUMBER.contains(&pointer.as_str())) {
        // No field holds a fraction, or more than 64 bits.
        for number in ["1.5", "1e300", "18446744073709551616", "-9223372036854775809"] {
            let number: Value = serde_json::from_str(number).unwrap();
            match spoilt(&config, pointer, &number) {
                Err(error) if error.contains(&named(pointer)) => {}
                other => wrong.push(format!("{pointer} = {number}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_number_just_beyond_its_own_range_is_an_error_that_names_its_field() {
    let config = every_field();
    let table: [(&str, &[i64]); 31] = [
        ("/process/consoleSize/height", &[-1, 65536]),
        ("/process/consoleSize/width", &[-1, 65536]),
        ("/process/user/uid", &[-1, 1 << 32]),
        ("/process/user/gid", &[-1, 1 << 32]),
        ("/process/user/umask", &[-1, 0o1000, 1 << 32]),
        ("/process/user/additionalGids/0", &[-1, 1 << 32]),
        ("/process/rlimits/0/soft", &[-1]),
        ("/process/rlimits/0/hard", &[-1]),
        ("/process/oomScoreAdj", &[-1001, 1001, 1 << 31]),
        ("/process/scheduler/nice", &[-21, 20, 1 << 31]),
        ("/process/scheduler/priority", &[-1, 1]),
        ("/process/ioPriority/priority", &[-1, 8]),
        ("/hooks/prestart/0/timeout", &[-1, 0]),
        ("/linux/uidMappings/0/containerID", &[-1, 1 << 32]),
        ("/linux/uidMappings/0/hostID", &[-1, 1 << 32]),
        ("/linux/uidMappings/0/size", &[-1, 0, 1 << 32, u32::MAX as i64]),
        ("/linux/timeOffsets/monotonic/nanosecs", &[-1, 1_000_000_000]),
        ("/linux/devices/0/fileMode", &[-1, 1 << 32]),
        ("/linux/devices/0/uid", &[-1, 1 << 32]),
        ("/linux/devices/0/gid", &[-1, 1 << 32]),
        ("/linux/seccomp/defaultErrnoRet", &[-1, 1 << 32]),
        ("/linux/seccomp/syscalls/0/errnoRet", &[-1, 1 << 32]),
        ("/linux/seccomp/syscalls/0/args/0/index", &[-1, 6]),
        ("/linux/seccomp/syscalls/0/args/0/value", &[-1]),
        ("/linux/resources/memory/limit", &[-2]),
        ("/linux/resources/memory/swap", &[-2, 1]),
        ("/linux/resources/memory/reservation", &[-2]),
        ("/linux/resources/cpu/idle", &[-1, 2]),
        ("/linux/resources/cpu/period", &[-1]),
        ("/linux/resources/blockIO/weight", &[-1, 9, 1001, 65536]),
        ("/linux/resources/hugepageLimits/0/limit", &[-1]),
    ];
    let mut wrong = Vec::new();
    for (pointer, numbers) in table {
        for number in numbers {
            match spoilt(&config, pointer, &json!(number)) {
                Err(error) if error.contains(&named(pointer)) => {}
                other => wrong.push(format!("{pointer} = {number}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_word_that_is_not_known_is_an_error_that_names_its_field() {
    let config = every_field();
    let table = [
        "/ociVersion",
        "/process/capabilities/bounding/0",
        "/process/capabilities/effective/0",
        "/process/capabilities/inheritable/0",
        "/process/capabilities/permitted/0",
        "/process/capabilities/ambient/0",
        "/process/rlimits/0/type",
        "/process/scheduler/policy",
        "/process/scheduler/flags/0",
        "/process/ioPriority/class",
        "/process/execCPUAffinity/initial",
        "/process/execCPUAffinity/final",
        "/linux/namespaces/0/type",
        "/linux/devices/0/type",
        "/linux/rootfsPropagation",
        "/linux/personality/domain",
        "/linux/seccomp/defaultAction",
        "/linux/seccomp/architectures/0",
        "/linux/seccomp/flags/0",
        "/linux/seccomp/syscalls/0/action",
        "/linux/seccomp/syscalls/0/args/0/op",
        "/linux/resources/devices/0/type",
        "/linux/resources/devices/0/access",
        "/linux/resources/cpu/cpus",
        "/linux/resources/cpu/mems",
        "/linux/resources/hugepageLimits/0/pageSize",
    ];
    let mut wrong = Vec::new();
    for pointer in table {
        for word in ["nonsense", "", "\u{1F4A5}", "a\u{0}b"] {
            // An empty list of cpus, or no propagation, says nothing.
            let nothing = word.is_empty()
                && ["/linux/rootfsPropagation", "/linux/resources/cpu/cpus", "/linux/resources/cpu/mems"]
                    .contains(&pointer);
            match spoilt(&config, pointer, &json!(word)) {
                Ok(()) if nothing => {}
                Err(error) if error.contains(&named(pointer)) => {}
                other => wrong.push(format!("{pointer} = {word:?}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A small generator with a fixed seed: what failed once fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// Bytes that are no letters, or that mean something in JSON.
const STRANGE: [u8; 12] = *b"\0\x7f\xff\xc3\"\\{}[]:-";

/// Values that a field may not expect.
fn strange(random: &mut Random) -> Value {
    let values = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("/"),
        json!("../../.."),
        json!("\0"),
        json!("a".repeat(5000)),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!("4294967296"),
    ];
    values[random.below(values.len())].clone()
}

#[test]
fn ten_thousand_mutated_configs_never_panic() {
    let whole = every_field();
    let text = whole.to_string().into_bytes();
    let mut pointers = Vec::new();
    places(&whole, "", &mut pointers);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut parsed, mut accepted) = (0, 0);
    for round in 0..10_000 {
        // Half of them as text, half of them as values.
        let bytes = if round % 2 == 0 {
            let mut bytes = text.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|byte| *byte = STRANGE[random.below(STRANGE.len())]),
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"{}[]\",0"[random.below(7)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            bytes
        } else {
            let mut config = whole.clone();
            for _ in 0..=random.below(2) {
                if let Some(place) = config.pointer_mut(&pointers[random.below(pointers.len())]) {
                    *place = strange(&mut random);
                }
            }
            config.to_string().into_bytes()
        };
        // Through the library: it is the same code, and thousands of processes would take minutes.
        let Ok(spec) = husk::bundle::spec::parse(&bytes) else { continue };
        parsed += 1;
        let Ok(config) = serde_json::to_value(&spec) else { continue };
        if let Ok(decision) = decide_with(&config, &operator()) {
            accepted += 1;
            assert!((1..=32).contains(&decision.machine.vcpus), "round {round}");
            assert!(decision.machine.memory_mib >= 64, "round {round}");
        }
    }
    // Neither all nor none: the rounds reached every stage.
    assert!(
        accepted > 100 && parsed > accepted + 100 && parsed < 9_900,
        "{parsed} parsed, {accepted} accepted"
    );
}
