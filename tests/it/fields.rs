//! The whole specification as a table: each field is honoured, or refused by its name. Nothing is dropped in silence.

use crate::support::{config, config_with};
use husk::bundle::{Bundle, Source, spec};
use husk::config::machine::Facts;
use husk::config::operator::{Operator, SecurityLabels};
use husk::config::{Decision, Sandbox, decide, decide_joining};
use husk::machine::order::{ExportDevice, NetworkNamespace};
use husk_protocol::{IdMap, MountSource, TerminalSize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FACTS: Facts = Facts { processors: 8, memory_mib: 16384 };

pub fn decide_with(config: &Value, operator: &Operator) -> Result<Decision, String> {
    decide("c", &bundle(config)?, operator, FACTS).map_err(|error| error.to_string())
}

fn bundle(config: &Value) -> Result<Bundle, String> {
    let spec = spec::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let mounts = spec.mounts().as_deref().unwrap_or(&[]);
    let is_bind = |mount: &oci_spec::runtime::Mount| {
        mount.options().iter().flatten().any(|option| option.ends_with("bind"))
    };
    let source = |mount: &oci_spec::runtime::Mount| {
        let path = mount.source().clone().unwrap_or_default();
        Source { directory: !path.ends_with("file"), path, flags: 0 }
    };
    let sources: BTreeMap<usize, Source> = mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| is_bind(mount))
        .map(|(index, mount)| (index, source(mount)))
        .collect();
    Ok(Bundle { directory: "/b".into(), spec, rootfs: "/b/rootfs".into(), sources })
}

fn decided(pointer: &str, value: Value) -> Result<Decision, String> {
    decide_with(&config_with(pointer, value), &Operator::default())
}

fn fine(pointer: &str, value: Value) -> Decision {
    decided(pointer, value.clone()).unwrap_or_else(|error| panic!("{pointer} = {value}: {error}"))
}

#[test]
fn process_fields_are_honoured() {
    let process = |name: &str, value: Value| fine(&format!("/process/{name}"), value).container.process;
    assert_eq!(process("args", json!(["sh", "-c", "exit"])).args, ["sh", "-c", "exit"]);
    assert_eq!(
        process("env", json!(["A=1", "B=2", "A=3"])).env,
        ["A=3", "B=2"],
        "the last value counts, as under runc"
    );
    assert_eq!(process("cwd", json!("/tmp")).cwd, "/tmp");
    let user = process("user", json!({"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]})).user;
    assert_eq!((user.uid, user.gid, user.umask, user.additional_gids), (1, 2, Some(18), vec![3, 4]));
    assert_eq!(process("capabilities", json!({"ambient": ["CAP_KILL"]})).capabilities.ambient, 1 << 5);
    assert_eq!(
        process("rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}])).rlimits[0].hard,
        2
    );
    assert!(process("noNewPrivileges", json!(true)).no_new_privileges);
    assert_eq!(process("oomScoreAdj", json!(-500)).oom_score_adj, Some(-500));
    assert_eq!(
        process("scheduler", json!({"policy": "SCHED_FIFO", "priority": 3})).scheduler.unwrap().policy,
        1
    );
    assert_eq!(
        process("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 4})).io_priority.unwrap().level,
        4
    );
    let affinity = process("execCPUAffinity", json!({"initial": "0", "final": "0-1"})).cpu_affinity;
    assert_eq!(affinity, None, "it is for execs, not for a container's first process");
    let mut with_size = config_with("/process/terminal", json!(true));
    with_size["process"]["consoleSize"] = json!({"height": 25, "width": 80});
    assert_eq!(
        decide_with(&with_size, &Operator::default()).unwrap().terminal,
        Some(TerminalSize { rows: 25, columns: 80 })
    );
    assert_eq!(fine("/process/terminal", json!(true)).terminal, Some(TerminalSize::default()));
    assert_eq!(fine("/process/terminal", json!(false)).terminal, None);
}

#[test]
fn the_rest_of_the_container_is_honoured() {
    assert!(fine("/root/readonly", json!(true)).container.root.read_only);
    assert_eq!(fine("/hostname", json!("box")).container.hostname.as_deref(), Some("box"));
    assert_eq!(fine("/domainname", json!("example")).container.domainname.as_deref(), Some("example"));
    assert_eq!(fine("/annotations", json!({"a": "b"})).annotations.get("a").map(String::as_str), Some("b"));
    let linux = |name: &str, value: Value| fine(&format!("/linux/{name}"), value);
    assert_eq!(linux("maskedPaths", json!(["/proc/kcore"])).container.masked_paths, ["/proc/kcore"]);
    assert_eq!(linux("readonlyPaths", json!(["/proc/sys"])).container.readonly_paths, ["/proc/sys"]);
    assert_eq!(
        linux("sysctl", json!({"kernel.msgmax": "65536"})).container.sysctl,
        [("kernel.msgmax".into(), "65536".into())]
    );
    assert_eq!(
        linux("rootfsPropagation", json!("rslave")).container.root.propagation,
        (libc::MS_SLAVE | libc::MS_REC)
    );
    assert_eq!(linux("personality", json!({"domain": "LINUX32"})).container.personality, Some(8));
    assert_eq!(
        linux("devices", json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]))
            .container
            .devices[0]
            .minor,
        229
    );
    assert_eq!(linux("cgroupsPath", json!("/pods/one")).cgroup.path, Some("/pods/one".into()));
    assert_eq!(linux("cgroupsPath", json!("")).cgroup.path, None);
    assert!(
        !linux("seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO"})).container.process.seccomp.is_empty()
    );
}

#[test]
fn namespaces_are_new_or_the_guests_own_and_the_network_may_be_given() {
    let decision = decide_with(&config(), &Operator::default()).unwrap();
    let inside = decision.container.namespaces;
    assert!(inside.pid && inside.network && inside.ipc && inside.uts && inside.mount);
    assert!(!inside.user && !inside.cgroup && !inside.time);
    assert_eq!(decision.network, NetworkNamespace::New);
    let given = fine("/linux/namespaces/1", json!({"type": "network", "path": "/run/netns/one"}));
    assert_eq!(given.network, NetworkNamespace::Path("/run/netns/one".into()));

    let mut with_user = config();
    with_user["linux"]["namespaces"].as_array_mut().unwrap().extend([
        json!({"type": "user"}),
        json!({"type": "time"}),
        json!({"type": "cgroup"}),
    ]);
    with_user["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    with_user["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    with_user["linux"]["timeOffsets"] =
        json!({"monotonic": {"secs": 5, "nanosecs": 6}, "boottime": {"secs": -7}});
    let container = decide_with(&with_user, &Operator::default()).unwrap().container;
    assert_eq!(container.uid_map, [IdMap { inside: 0, outside: 100_000, size: 65536 }]);
    assert_eq!(container.gid_map[0].outside, 200_000);
    assert_eq!(
        container
            .time_offsets
            .iter()
            .map(|offset| (offset.clock.as_str(), offset.seconds))
            .collect::<Vec<_>>(),
        [("boottime", -7), ("monotonic", 5)]
    );
    assert!(container.namespaces.user && container.namespaces.time && container.namespaces.cgroup);
}

#[test]
fn mounts_become_shares_and_file_systems_of_the_guest() {
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "rro", "rprivate"]},
        {"destination": "/etc/hosts", "source": "/srv/file", "options": ["bind", "ro", "nosuid"]},
        {"destination": "tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "tmpcopyup", "nodev"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]);
    let decision = fine("/mounts", mounts);
    let [proc, data, hosts, tmp, cgroup] = decision.container.mounts.as_slice() else { panic!("five") };
    assert_eq!(proc.source, MountSource::Filesystem { kind: "proc".into(), source: "proc".into() });
    assert_eq!(data.source, MountSource::Share { name: "0".into(), directory: true, recursive: true });
    assert_eq!(data.attributes.recursive_set, libc::MOUNT_ATTR_RDONLY);
    assert_eq!(data.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    assert_eq!(hosts.source, MountSource::Share { name: "1".into(), directory: false, recursive: false });
    assert_eq!(hosts.attributes.set, libc::MS_RDONLY | libc::MS_NOSUID);
    assert_eq!((tmp.destination.as_str(), tmp.data.as_str(), tmp.copy_up), ("/tmp", "size=1m", true));
    assert_eq!(cgroup.source, MountSource::Cgroup);

    let exports = decision.exports;
    assert_eq!(
        exports.iter().map(|export| (export.device, export.name.as_str())).collect::<Vec<_>>(),
        [(ExportDevice::Root, "0"), (ExportDevice::Share, "0"), (ExportDevice::Share, "1"),]
    );
    assert_eq!(exports[0].source.to_str(), Some("/b/rootfs"));
    assert!(exports[1].read_only && exports[1].recursive && exports[2].read_only && !exports[2].recursive);
}

#[test]
fn limits_size_the_machine_and_bind_it_outside() {
    let decision = fine(
        "/linux/resources",
        json!({
            "memory": {"limit": 268_435_456}, "cpu": {"quota": 250_000, "period": 100_000}, "pids": {"limit": 10},
            "devices": [{"allow": false, "access": "rwm"}],
        }),
    );
    assert_eq!((decision.machine.vcpus, decision.machine.memory_mib), (3, 304));
    let inside = &decision.container.resources;
    assert!(inside.files.contains(&("memory.max".into(), "268435456".into())));
    assert_eq!(inside.vcpus, Some(3));
    assert!(!inside.devices[0].allow && inside.devices.len() > 1);
    assert!(decision.cgroup.files.contains(&("memory.max".into(), ((304u64 + 64) << 20).to_string())));
    assert!(decision.cgroup.files.contains(&("cpu.max".into(), "300000 100000".into())));
    assert_eq!(decision.cgroup.needed_for, None);
    assert_eq!(
        fine("/linux/resources", json!({"cpu": {"cpus": "0"}})).cgroup.needed_for,
        Some("linux.resources.cpu.cpus")
    );
}

#[test]
#[allow(deprecated)]
fn hooks_are_kept_and_those_of_start_container_go_inside() {
    let decided = fine(
        "/hooks",
        json!({
            "prestart": [{"path": "/bin/a", "args": ["a", "b"], "env": ["X=y"], "timeout": 3}],
            "createRuntime": [{"path": "/bin/b"}], "createContainer": [{"path": "/bin/c"}],
            "poststart": [{"path": "/bin/d"}], "poststop": [{"path": "/bin/e"}],
            "startContainer": [{"path": "/bin/f", "args": ["f"], "env": ["A=b"], "timeout": 2}],
        }),
    );
    let inside = &decided.container.start_hooks.hooks;
    assert_eq!((inside[0].path.as_str(), inside[0].timeout), ("/bin/f", Some(2000)));
    let hooks = decided.hooks;
    assert_eq!(hooks.prestart[0].args, ["a", "b"]);
    assert_eq!(hooks.prestart[0].timeout, Some(std::time::Duration::from_secs(3)));
    let paths = [&hooks.create_runtime, &hooks.create_container, &hooks.poststart, &hooks.poststop]
        .map(|list| list[0].path.clone());
    assert_eq!(paths, ["/bin/b", "/bin/c", "/bin/d", "/bin/e"]);
}

#[test]
fn what_cannot_be_is_refused_with_the_name_of_the_field() {
    let mount = |fields: Value| json!([fields]);
    let bind = |options: Value| json!([{"destination": "/d", "source": "/srv/d", "options": options}]);
    let namespace = |fields: Value| json!([{"type": "network"}, {"type": "mount"}, fields]);
    // pointer, value, how the error begins
    let table: Vec<(&str, Value, &str)> = vec![
        ("/process", Value::Null, "process: process property must not be empty"),
        ("/process/args", json!([]), "process.args: args must not be empty"),
        ("/process/args", json!(["a\0b"]), "process.args[0]: contains a null byte"),
        ("/process/cwd", json!(""), "process.cwd: Cwd property must not be empty"),
        ("/process/cwd", json!("tmp"), "process.cwd: Cwd must be an absolute path"),
        (
            "/process/env",
            json!(["A=1", "novalue"]),
            "process.env[1]: invalid environment variable: missing '='",
        ),
        ("/process/env", json!(["=1"]), "process.env[0]: invalid environment variable: name cannot be empty"),
        ("/process/user/umask", json!(0o1000), "process.user.umask: "),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: "),
        ("/process/commandLine", json!("cmd"), "process.commandLine: "),
        ("/process/apparmorProfile", json!("docker-default"), "process.apparmorProfile: "),
        ("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"), "process.selinuxLabel: "),
        (
            "/process/capabilities",
            json!({"bounding": ["CAP_NONSENSE"]}),
            "process.capabilities.bounding[0]: ",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type: ",
        ),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 30}), "process.scheduler.nice: "),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_RT", "priority": 9}),
            "process.ioPriority.priority: ",
        ),
        ("/process/execCPUAffinity", json!({"initial": "a"}), "process.execCPUAffinity.initial: "),
        ("/hostname", json!("a".repeat(65)), "hostname: is longer"),
        (
            "/annotations",
            json!({"io.husk.vcpus": "4"}),
            "annotations.io.husk.vcpus: is not allowed by the operator",
        ),
        ("/annotations", json!({"husk.kernel": "/x"}), "annotations.husk.kernel: is not known"),
        ("/solaris", json!({}), "solaris: is for another platform"),
        ("/windows", json!({"layerFolders": []}), "windows: is for another platform"),
        ("/zos", json!({}), "zos: is for another platform"),
        ("/freebsd", json!({}), "freebsd: not supported"),
        ("/vm", json!({"kernel": {"path": "/k"}}), "vm: "),
        ("/hooks", json!({"startContainer": [{"path": "x"}]}), "hooks.startContainer[0].path: must be"),
        ("/hooks", json!({"poststop": [{"path": "x"}]}), "hooks.poststop[0].path: must be an absolute path"),
        ("/hooks", json!({"prestart": [{"path": "/x", "timeout": 0}]}), "hooks.prestart[0].timeout: "),
        (
            "/mounts",
            mount(json!({"destination": "", "type": "proc"})),
            "mounts[0].destination: must not be empty",
        ),
        (
            "/mounts",
            mount(json!({"destination": "/d", "type": "ext4", "source": "/dev/sda1"})),
            "mounts[0].type: \"ext4\" cannot be mounted",
        ),
        (
            "/mounts",
            mount(json!({"destination": "/d", "type": "debugfs", "source": "debugfs"})),
            "mounts[0].type: \"debugfs\" cannot be mounted",
        ),
        (
            "/mounts",
            mount(json!({"destination": "/d", "type": "bind", "source": "/srv/d"})),
            "mounts[0].type: ",
        ),
        (
            "/mounts",
            mount(json!({"destination": "/d\u{0}", "type": "proc"})),
            "mounts[0].destination: contains a null byte",
        ),
        (
            "/mounts",
            mount(json!({"destination": "/d", "type": "proc", "options": ["tmpcopyup"]})),
            "mounts[0].options: tmpcopyup",
        ),
        (
            "/mounts",
            mount(json!({"destination": "/d", "type": "proc", "options": ["remount"]})),
            "mounts[0].options: remount",
        ),
        (
            "/mounts",
            bind(json!(["bind", "size=1m"])),
            "mounts[0].options: bind mounts cannot have any filesystem-specific options",
        ),
        ("/mounts", bind(json!(["rbind", "idmap"])), "mounts[0].options: id-mapped"),
        (
            "/mounts",
            mount(
                json!({"destination": "/d", "source": "/srv/d", "options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            ),
            "mounts[0].uidMappings: id-mapped",
        ),
        ("/linux", Value::Null, "linux.namespaces: a container of husk needs a mount namespace"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}]),
            "linux.namespaces: the host's network namespace cannot be used",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "network"}]),
            "linux.namespaces: a container of husk needs a mount namespace",
        ),
        (
            "/linux/namespaces",
            namespace(json!({"type": "pid", "path": "/proc/1/ns/pid"})),
            "linux.namespaces[2].path: a pid namespace of the host",
        ),
        (
            "/linux/namespaces",
            namespace(json!({"type": "network"})),
            "linux.namespaces[2]: malformed spec file: duplicated ns",
        ),
        ("/linux/namespaces", namespace(json!({"type": "galaxy"})), "linux.namespaces[2].type: "),
        ("/linux/namespaces/1/path", json!("relative"), "linux.namespaces[1].path: must be an absolute path"),
        (
            "/linux/namespaces",
            namespace(json!({"type": "user"})),
            "linux.uidMappings: user namespaces enabled, but no mappings",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            "linux.uidMappings: user namespace mappings specified, but",
        ),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "linux.timeOffsets: time namespace offsets specified, but",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]),
            "linux.devices[0]: device 8:0",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "a", "major": 1, "minor": 3}]),
            "linux.devices[0].type: ",
        ),
        (
            "/linux/devices",
            json!([{"path": "null", "type": "c", "major": 1, "minor": 3}]),
            "linux.devices[0].path: must be an absolute path",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 3}]),
            "linux.devices[0].major: ",
        ),
        ("/linux/resources", json!({"devices": [{"allow": true}]}), "linux.resources.devices[0].access: "),
        ("/linux/resources", json!({"memory": {"swappiness": 5}}), "linux.resources.memory.swappiness: "),
        ("/linux/resources", json!({"network": {"classID": 5}}), "linux.resources.network.classID: "),
        ("/linux/resources", json!({"unified": {"../x": "1"}}), "linux.resources.unified.../x: "),
        ("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths[0]: "),
        ("/linux/readonlyPaths", json!(["/a", "b"]), "linux.readonlyPaths[1]: "),
        ("/linux/sysctl", json!({"kernel.hostname": "x"}), "linux.sysctl.kernel.hostname: "),
        ("/linux/sysctl", json!({"../../etc": "x"}), "linux.sysctl.../../etc: "),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation: rootfsPropagation=sideways is not supported",
        ),
        ("/linux/mountLabel", json!("system_u:object_r:x:s0"), "linux.mountLabel: "),
        ("/linux/intelRdt", json!({"closID": "a"}), "linux.intelRdt: "),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}), "linux.memoryPolicy: "),
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices: "),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}),
            "linux.personality.flags: ",
        ),
        ("/linux/personality", json!({"domain": "BSD"}), "linux.personality.domain: "),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "linux.seccomp.defaultAction: "),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONSENSE"}), "linux.seccomp.defaultAction: "),
    ];
    for (pointer, value, message) in table {
        match decided(pointer, value.clone()) {
            Ok(_) => panic!("{pointer} = {value} was taken"),
            Err(error) => assert!(error.starts_with(message), "{pointer} = {value}: {error}"),
        }
    }
}

#[test]
fn every_field_with_a_wrong_type_is_named() {
    let mut wrong = Vec::new();
    let full = json!({
        "ociVersion": "1.2.0", "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
        "process": {"terminal": true, "consoleSize": {"height": 1, "width": 1}, "user": {"uid": 0, "gid": 0, "umask": 0, "additionalGids": [1]},
            "args": ["a"], "env": ["A=b"], "cwd": "/", "capabilities": {"bounding": ["CAP_KILL"]}, "noNewPrivileges": true, "oomScoreAdj": 1,
            "rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}], "apparmorProfile": "", "selinuxLabel": "",
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}, "scheduler": {"policy": "SCHED_FIFO", "priority": 1}},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/d", "type": "proc", "source": "proc", "options": ["ro"]}],
        "hooks": {"prestart": [{"path": "/x", "args": ["x"], "env": ["A=b"], "timeout": 1}]},
        "linux": {"namespaces": [{"type": "network", "path": "/x"}], "cgroupsPath": "/c", "sysctl": {"a.b": "c"}, "maskedPaths": ["/m"],
            "readonlyPaths": ["/r"], "rootfsPropagation": "slave", "mountLabel": "", "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
            "devices": [{"path": "/d", "type": "c", "major": 1, "minor": 3, "fileMode": 1, "uid": 1, "gid": 1}],
            "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 1}}, "personality": {"domain": "LINUX"},
            "resources": {"memory": {"limit": 1}, "cpu": {"shares": 1, "cpus": "0"}, "pids": {"limit": 1}, "blockIO": {"weight": 10},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "unified": {"a.b": "c"}, "devices": [{"allow": true, "access": "r"}]},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "flags": [],
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}},
    });
    leaves(&full, &mut Vec::new(), &mut |path, _| wrong.push(path.to_vec()));
    assert!(wrong.len() > 70, "{}", wrong.len());
    for path in wrong {
        let mut config = full.clone();
        let mut at = &mut config;
        for key in &path {
            at = match key.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[key.as_str()],
            };
        }
        *at = json!({"a wrong": "type"});
        let error = spec::parse(config.to_string().as_bytes()).unwrap_err().to_string();
        let last = path.iter().rev().find(|key| key.parse::<usize>().is_err()).unwrap();
        assert!(error.contains(last.as_str()), "{path:?}: {error}");
    }
}

fn leaves(value: &Value, path: &mut Vec<String>, found: &mut impl FnMut(&[String], &Value)) {
    let mut below = |key: String, value: &Value| {
        path.push(key);
        leaves(value, path, found);
        path.pop();
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value))
        }
        leaf => found(path, leaf),
    }
}

#[test]
fn labels_are_left_out_when_the_operator_says_so() {
    let mut operator = Operator::default();
    operator.container.security_labels = SecurityLabels::Ignore;
    let mut config = config_with("/process/apparmorProfile", json!("docker-default"));
    config["linux"]["mountLabel"] = json!("x");
    assert!(decide_with(&config, &operator).is_ok());
    assert!(decided("/process/apparmorProfile", json!("unconfined")).is_ok(), "unconfined is no profile");
}

#[test]
fn no_annotation_can_do_more_than_size_the_machine_within_bounds() {
    let mut operator = Operator::default();
    operator.container.annotations = husk::config::annotation::KNOWN.map(str::to_owned).to_vec();
    (operator.machine.max_vcpus, operator.machine.max_memory_mib) = (4, 1000);
    let plain = decide_with(&config(), &operator).unwrap().machine;
    for (vcpus, memory) in [("0", "0"), ("1", "64"), ("4294967295", "4294967295"), ("7", "999")] {
        let with = config_with(
            "/annotations",
            json!({"io.husk.vcpus": vcpus, "io.husk.memory_mib": memory, "com.example.kernel": "/x"}),
        );
        let machine = decide_with(&with, &operator).unwrap().machine;
        assert!((1..=4).contains(&machine.vcpus) && (64..=1000).contains(&machine.memory_mib), "{machine:?}");
        assert_eq!(
            (machine.kernel, machine.initrd, machine.command_line),
            (plain.kernel.clone(), plain.initrd.clone(), plain.command_line.clone())
        );
    }
}

/// What becomes of a container with these namespaces that joins the sandbox with pid 42.
fn joining(namespaces: &Value, pointer: &str, value: Value) -> Result<Decision, String> {
    let mut config = config_with(pointer, value);
    config["linux"]["namespaces"] = namespaces.clone();
    let (operator, sandbox) = (Operator::default(), Sandbox { pid: 42 });
    decide_joining("c", &bundle(&config)?, &operator, FACTS, sandbox).map_err(|error| error.to_string())
}

#[test]
fn a_pods_container_has_the_namespaces_of_its_sandbox_that_it_names() {
    let network = json!({"type": "network", "path": "/proc/42/ns/net"});
    let of = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/42/ns/{file}")});
    let all = json!([{"type": "mount"}, {"type": "pid"}, of("ipc", "ipc"), of("uts", "uts"), network]);
    let decision = joining(&all, "/hostname", json!("inside")).unwrap();
    let (own, shared) = (decision.container.namespaces, decision.container.shared.unwrap());
    assert!(own.mount && own.pid && !own.ipc && !own.uts);
    assert!(shared.ipc && shared.uts && !shared.pid);
    assert_eq!(decision.container.resources.vcpus, None, "those are the sandbox's");
    assert_eq!(decision.container.hostname.as_deref(), Some("inside"));

    // Nothing of it is in a group on the host, so what only the host could do is refused, and nothing is written there.
    let limited =
        joining(&all, "/linux/resources", json!({"memory": {"limit": 1 << 20}, "pids": {"limit": 5}}));
    let limited = limited.unwrap();
    assert_eq!(limited.cgroup.files, []);
    assert!(limited.container.resources.files.contains(&("memory.max".to_owned(), "1048576".to_owned())));

    let shared_pids = json!([{"type": "mount"}, of("pid", "pid"), network]);
    assert!(joining(&shared_pids, "/hostname", Value::Null).unwrap().container.shared.unwrap().pid);
    let table = [
        (json!([{"type": "mount"}, {"type": "network"}]), "has its sandbox's network"),
        (json!([{"type": "mount"}]), "the host's network"),
        (json!([{"type": "mount"}, network, {"type": "ipc", "path": "/proc/1/ns/ipc"}]), "cannot be joined"),
        (json!([{"type": "mount"}, network, of("cgroup", "cgroup")]), "cannot be joined"),
        (json!([{"type": "mount"}, network, {"type": "user"}]), "user namespace of its own"),
        (json!([{"type": "mount"}, network, of("ipc", "ipc"), of("ipc", "ipc")]), "duplicated ns"),
        (json!([{"type": "mount"}, network, of("ipc", "ipc"), {"type": "ipc"}]), "duplicated ns"),
    ];
    for (namespaces, words) in table {
        let error = joining(&namespaces, "/hostname", Value::Null).unwrap_err();
        assert!(error.contains(words), "{namespaces}: {error}");
    }
    let error = joining(&all, "/linux/resources", json!({"cpu": {"cpus": "0"}})).unwrap_err();
    assert!(error.contains("one machine to the host"), "{error}");
    // One that has its own machine joins nobody's.
    let mut alone = config();
    alone["linux"]["namespaces"] = all;
    assert!(decide_with(&alone, &Operator::default()).unwrap_err().contains("cannot be joined"));
}
