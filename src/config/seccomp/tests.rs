//! Profiles compiled, and run on made-up calls by a small interpreter: what counts is what a filter says, not its bytes.

use super::*;

/// What a filter returns for a call of x86-64 (a `struct seccomp_data`).
fn run(program: &Program, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(0xc000_003e_u32.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_ne_bytes()));
    let instructions: Vec<(u16, usize, usize, u32)> = program
        .instructions
        .chunks_exact(8)
        .map(|i| {
            (
                u16::from_ne_bytes([i[0], i[1]]),
                i[2].into(),
                i[3].into(),
                u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
            )
        })
        .collect();
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let (code, yes, no, value) = instructions[at];
        let branch = |taken: bool| if taken { yes } else { no };
        at += 1 + match code {
            0x20 => {
                let offset = value as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                0
            }
            0x54 => {
                accumulator &= value;
                0
            }
            0x05 => value as usize,
            0x15 => branch(accumulator == value),
            0x25 => branch(accumulator > value),
            0x35 => branch(accumulator >= value),
            0x45 => branch(accumulator & value != 0),
            0x06 => return value,
            other => panic!("instruction {other:#x}"),
        };
    }
}

fn compiled(json: &str) -> Result<Program, ConfigError> {
    compile(&serde_json::from_str(json).unwrap())
}

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}
fn call(name: &str) -> u32 {
    ScmpSyscall::from_name(name).unwrap().as_raw_syscall() as u32
}

#[test]
fn rules_and_the_default_action_are_applied() {
    let program = compiled(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "write", "no_such_call_yet", "openat2"], "action": "SCMP_ACT_ALLOW"},
                         {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                         {"names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#,
    )
    .unwrap();
    assert_eq!(run(&program, call("read"), [0; 6]), ALLOW);
    assert_eq!(run(&program, call("mount"), [0; 6]), errno(38));
    assert_eq!(run(&program, call("reboot"), [0; 6]), KILL_PROCESS);
    assert_eq!(run(&program, call("ptrace"), [0; 6]), errno(13), "the default");
    assert_eq!(program.flags, SPEC_ALLOW);
}

#[test]
fn calls_newer_than_any_in_the_profile_do_not_exist() {
    let profile = |default: &str| {
        format!(
            r#"{{"defaultAction": "{default}", "syscalls": [{{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2}}]}}"#
        )
    };
    let strict = compiled(&profile("SCMP_ACT_KILL_PROCESS")).unwrap();
    assert_eq!(run(&strict, call("clone3") + 1, [0; 6]), errno(38));
    assert_eq!(run(&strict, call("clone3"), [0; 6]), errno(2));
    assert_eq!(run(&strict, call("clone3") - 1, [0; 6]), KILL_PROCESS);
    let open = compiled(&profile("SCMP_ACT_ALLOW")).unwrap();
    assert_eq!(run(&open, call("clone3") + 1, [0; 6]), ALLOW);
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let program = compiled(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_GE"}]}]}"#,
    )
    .unwrap();
    assert_eq!(run(&program, call("socket"), [16, 0, 9, 0, 0, 0]), errno(1));
    assert_eq!(run(&program, call("socket"), [16, 0, 8, 0, 0, 0]), ALLOW);
    assert_eq!(run(&program, call("socket"), [15, 0, 9, 0, 0, 0]), ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let program = compiled(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#,
    )
    .unwrap();
    assert_eq!(run(&program, call("personality"), [8, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&program, call("personality"), [0; 6]), ALLOW);
    assert_eq!(run(&program, call("personality"), [1, 0, 0, 0, 0, 0]), errno(1));
}

#[test]
fn a_masked_comparison_has_the_mask_first() {
    let program = compiled(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
    )
    .unwrap();
    assert_eq!(run(&program, call("clone"), [0x11, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&program, call("clone"), [0x1000_0000, 0, 0, 0, 0, 0]), errno(1), "CLONE_NEWUSER");
}

#[test]
fn flags_are_those_of_the_profile() {
    let flags = |json: &str| {
        compiled(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": {json}}}"#)).map(|p| p.flags)
    };
    assert_eq!(flags("[]").unwrap(), 0);
    assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]"#).unwrap(), LOG);
    assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#).unwrap(), SPEC_ALLOW);
    assert!(flags(r#"["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#).is_err());
}

#[test]
fn what_cannot_be_compiled_is_refused_with_its_field() {
    let table = [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "linux.seccomp.defaultAction: "),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}"#, "linux.seccomp.listenerPath: "),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_SH"]}"#,
            "linux.seccomp.architectures[0]: ",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            "linux.seccomp.syscalls[0].action: ",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
            "linux.seccomp.syscalls[0].args[0].index: ",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [""], "action": "SCMP_ACT_TRAP"}]}"#,
            "linux.seccomp.syscalls[0].names[0]: ",
        ),
    ];
    for (json, field) in table {
        let error = compiled(json).unwrap_err().to_string();
        assert!(error.starts_with(field), "{json}: {error}");
    }
}
