//! The device controller: OCI device rules as a BPF program.
//!
//! The kernel runs it at each open and mknod with the wanted access. It keeps the bits that no rule has decided yet and
//! goes through the rules from the last to the first, since a later rule overrides an earlier one: an allowing rule takes
//! its bits away, and when none is left the access is allowed; a denying rule that names one of them ends it. What no rule
//! decides is denied. So each bit is decided by the last rule that names it, which no pairwise matching of whole rules
//! gives.
//!
//! runc's default rules count as if they came after the spec's: the devices that every container has stay usable.

use husk_protocol::{DeviceKind, DeviceRule};

const READ: u8 = 1;
const WRITE: u8 = 2;
const MKNOD: u8 = 4;
const ALL: u8 = READ | WRITE | MKNOD;

/// What runc allows every container: mknod of everything, use of the harmless.
const DEFAULTS: [DeviceRule; 10] = [
    rule(Some(DeviceKind::Character), None, None, MKNOD),
    rule(Some(DeviceKind::Block), None, None, MKNOD),
    rule(Some(DeviceKind::Character), Some(1), Some(3), ALL),
    rule(Some(DeviceKind::Character), Some(1), Some(8), ALL),
    rule(Some(DeviceKind::Character), Some(1), Some(7), ALL),
    rule(Some(DeviceKind::Character), Some(5), Some(0), ALL),
    rule(Some(DeviceKind::Character), Some(1), Some(5), ALL),
    rule(Some(DeviceKind::Character), Some(1), Some(9), ALL),
    rule(Some(DeviceKind::Character), Some(136), None, ALL),
    rule(Some(DeviceKind::Character), Some(5), Some(2), ALL),
];

const fn rule(kind: Option<DeviceKind>, major: Option<u32>, minor: Option<u32>, access: u8) -> DeviceRule {
    DeviceRule { allow: true, kind, major, minor, access }
}

/// The program, one `struct bpf_insn` a number.
pub fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        instruction(MOVE, ACCESS, TYPE, 0, 0),
        instruction(AND_NUMBER, TYPE, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_NUMBER, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().chain(&DEFAULTS).rev() {
        program.extend(block(rule));
    }
    program.extend(answer(0));
    program
}

/// One rule: tests that leave the block when the device is another one, then the verdict.
fn block(rule: &DeviceRule) -> Vec<u64> {
    let kind = match rule.kind {
        None => None,
        Some(DeviceKind::Block) => Some(1),
        Some(DeviceKind::Character) => Some(2),
        Some(DeviceKind::Fifo) => return Vec::new(), // the controller has no say in FIFOs
    };
    let access = kernel_access(rule.access);
    let verdict = if rule.allow {
        let mut verdict = vec![
            instruction(AND_NUMBER, ACCESS, 0, 0, u32::from(ALL & !access)),
            instruction(JUMP_UNLESS_EQUAL, ACCESS, 0, 2, 0),
        ];
        verdict.extend(answer(1));
        verdict
    } else {
        let mut verdict = vec![
            instruction(MOVE, SCRATCH, ACCESS, 0, 0),
            instruction(AND_NUMBER, SCRATCH, 0, 0, u32::from(access)),
            instruction(JUMP_IF_EQUAL, SCRATCH, 0, 2, 0),
        ];
        verdict.extend(answer(0));
        verdict
    };
    let tests: Vec<(u8, u32)> = [(TYPE, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(register, wanted)| Some((register, wanted?)))
        .collect();
    let mut block = Vec::new();
    for (passed, (register, wanted)) in tests.iter().enumerate() {
        // Over the tests still to come and the verdict.
        let over = tests.len().saturating_sub(passed).saturating_sub(1).saturating_add(verdict.len());
        let over = i16::try_from(over).unwrap_or(i16::MAX);
        block.push(instruction(JUMP_UNLESS_EQUAL, *register, 0, over, *wanted));
    }
    block.extend(verdict);
    block
}

/// Access bits as the kernel numbers them (linux/bpf.h: mknod 1, read 2, write 4).
fn kernel_access(access: u8) -> u8 {
    let when = |bit: u8, kernel: u8| if access & bit != 0 { kernel } else { 0 };
    when(READ, 2) | when(WRITE, 4) | when(MKNOD, 1)
}

fn answer(value: u32) -> [u64; 2] {
    [instruction(MOVE_NUMBER, 0, 0, 0, value), instruction(EXIT, 0, 0, 0, 0)]
}

/// `struct bpf_insn`: code, destination and source register, offset, number.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, number: u32) -> u64 {
    let [o0, o1] = offset.to_le_bytes();
    let [n0, n1, n2, n3] = number.to_le_bytes();
    u64::from_le_bytes([code, (source << 4) | destination, o0, o1, n0, n1, n2, n3])
}

// Registers: r1 is the context; r2 to r6 are ours.
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// linux/bpf.h, instruction classes and modes put together; jumps and arithmetic on 32 bits.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const MOVE_NUMBER: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const AND_NUMBER: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT_NUMBER: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_IF_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const JUMP_UNLESS_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel would do with the program: panics on anything but the instructions above.
    fn run(program: &[u64], kind: u32, access: u8, major: u32, minor: u32) -> bool {
        let context = [(u32::from(kernel_access(access)) << 16) | kind, major, minor];
        let mut registers = [0u32; 11];
        let mut at = 0usize;
        loop {
            let [code, both, o0, o1, n0, n1, n2, n3] = program[at].to_le_bytes();
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = i16::from_le_bytes([o0, o1]);
            let number = u32::from_le_bytes([n0, n1, n2, n3]);
            at += 1;
            let mut jump = |when: bool| {
                if when {
                    at += usize::try_from(offset).unwrap();
                }
            };
            match code {
                LOAD_WORD => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                MOVE => registers[to] = registers[from],
                MOVE_NUMBER => registers[to] = number,
                AND_NUMBER => registers[to] &= number,
                SHIFT_RIGHT_NUMBER => registers[to] >>= number,
                JUMP_IF_EQUAL => jump(registers[to] == number),
                JUMP_UNLESS_EQUAL => jump(registers[to] != number),
                EXIT => return registers[0] == 1,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    /// The rules' meaning, bit by bit.
    fn allowed(rules: &[DeviceRule], kind: DeviceKind, access: u8, major: u32, minor: u32) -> bool {
        let all: Vec<&DeviceRule> = rules.iter().chain(&DEFAULTS).collect();
        [READ, WRITE, MKNOD].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            all.iter()
                .rev()
                .find(|rule| {
                    rule.access & bit != 0
                        && rule.kind.is_none_or(|wanted| wanted == kind)
                        && rule.major.is_none_or(|wanted| wanted == major)
                        && rule.minor.is_none_or(|wanted| wanted == minor)
                })
                .is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn without_rules_a_container_can_use_what_runc_allows() {
        let program = compile(&[]);
        for (kind, access, major, minor, expected) in [
            (2, READ | WRITE, 1, 3, true),   // /dev/null
            (2, READ, 5, 0, true),           // /dev/tty
            (2, READ | WRITE, 136, 9, true), // /dev/pts/9
            (1, MKNOD, 8, 0, true),          // mknod of a disk
            (1, READ, 8, 0, false),          // its use
            (1, READ | MKNOD, 8, 0, false),
            (2, READ, 10, 200, false), // /dev/net/tun
        ] {
            assert_eq!(
                run(&program, kind, access, major, minor),
                expected,
                "{kind} {major}:{minor} {access}"
            );
        }
    }

    #[test]
    fn a_later_rule_takes_back_only_what_it_names() {
        let allow = DeviceRule { allow: true, kind: None, major: None, minor: None, access: ALL };
        let deny = DeviceRule { allow: false, kind: None, major: Some(8), minor: None, access: WRITE };
        let program = compile(&[allow, deny]);
        assert!(run(&program, 1, READ, 8, 0));
        assert!(!run(&program, 1, WRITE, 8, 0));
        assert!(!run(&program, 1, READ | WRITE, 8, 0), "one denied bit denies the access");
        assert!(run(&program, 1, READ | WRITE, 9, 0));
    }

    fn rules() -> impl Strategy<Value = Vec<DeviceRule>> {
        let kind = prop_oneof![
            Just(None),
            Just(Some(DeviceKind::Character)),
            Just(Some(DeviceKind::Block)),
            Just(Some(DeviceKind::Fifo))
        ];
        let number = prop_oneof![Just(None), (0u32..3).prop_map(Some)];
        let one = (any::<bool>(), kind, number.clone(), number, 0u8..8)
            .prop_map(|(allow, kind, major, minor, access)| DeviceRule { allow, kind, major, minor, access });
        proptest::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_say(rules in rules(), access in 1u8..8, major in 0u32..3, minor in 0u32..3) {
            let program = compile(&rules);
            for (number, kind) in [(1, DeviceKind::Block), (2, DeviceKind::Character)] {
                prop_assert_eq!(
                    run(&program, number, access, major, minor),
                    allowed(&rules, kind, access, major, minor)
                );
            }
        }
    }
}
