//! Programs, run by an interpreter of our own, against what their lists say. What the kernel makes of them is tried where the lists
//! are (`machine::walls`).

use super::*;

const PASS: u32 = libc::SECCOMP_RET_ALLOW;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// What it answers.
fn run(program: &Program, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let (mut at, mut held) = (0, 0_u32);
    // Every jump leads forwards.
    loop {
        let Instruction { code, yes, no, value } = program.instructions[..program.length][at];
        let branch = |condition: bool| usize::from(if condition { yes } else { no });
        at += 1 + match code {
            LOAD => {
                held = match value {
                    0 => number,
                    4 => architecture,
                    at => {
                        assert!(at >= 16 && at % 8 == 0, "not the lower half of an argument: {at}");
                        arguments[(at as usize - 16) / 8] as u32
                    }
                };
                0
            }
            EQUAL => branch(held == value),
            AT_LEAST => branch(held >= value),
            ANY_OF => branch(held & value != 0),
            AND => {
                held &= value;
                0
            }
            ALWAYS => value as usize,
            GIVE => return value,
            other => panic!("{other:#x}"),
        };
    }
}

/// What the list says, read in the plainest way.
fn said(lists: &[&[Allowed]], number: u32, arguments: [u64; 6]) -> u32 {
    let mut answer = KILL;
    for allowed in lists.iter().copied().flatten().filter(|allowed| allowed.number == i64::from(number)) {
        let argument = |at: u8| arguments[usize::from(at)] & 0xffff_ffff;
        let right = match allowed.only {
            Only::Any => true,
            Only::Unknown => return UNKNOWN,
            Only::Among(at, values) => values.contains(&argument(at)),
            Only::Without(at, bits) => argument(at) & bits == 0,
            Only::With(at, bits) => argument(at) & bits == bits,
            // Put in when it is entered.
            Only::OwnProcess(at) => argument(at) == 0,
        };
        if right {
            answer = PASS;
        }
    }
    answer
}

fn allowed(number: i64, only: Only) -> Allowed {
    Allowed { number, only }
}

fn compare(lists: &[&[Allowed]]) {
    let program = Program::of(lists);
    let mut passed = 0;
    for number in (0..1024).chain([1 << 30, (1 << 30) | 1, u32::MAX]) {
        for value in [0, 1, 2, 3, 4, 5, 7, 8, 0xffff_ffff, 1 << 32, (1 << 32) | 5] {
            for at in 0..6 {
                let mut arguments = [9; 6];
                arguments[at] = value;
                let answer = run(&program, ARCHITECTURE, number, arguments);
                assert_eq!(answer, said(lists, number, arguments), "call {number} with {arguments:?}");
                passed += u32::from(answer == PASS);
                assert_eq!(run(&program, !ARCHITECTURE, number, arguments), KILL);
            }
        }
    }
    assert_ne!(passed, 0);
}

#[test]
fn a_program_answers_as_its_lists_say() {
    let any =
        |numbers: std::ops::Range<i64>| numbers.map(|at| allowed(at * 7, Only::Any)).collect::<Vec<_>>();
    for count in 1..60 {
        compare(&[&any(0..count)]);
    }
    let picky = [
        allowed(16, Only::Among(1, &[1, 5, 0xffff_ffff])),
        allowed(9, Only::Without(2, 4)),
        allowed(56, Only::With(0, 3)),
        allowed(234, Only::OwnProcess(0)),
        allowed(435, Only::Unknown),
        allowed(3, Only::Any),
        allowed(4, Only::Among(5, &[])),
    ];
    compare(&[&picky]);
    compare(&[&any(1000..1030), &picky]);
}

#[test]
fn a_call_that_is_named_twice_may_have_the_arguments_of_both() {
    let one = [allowed(16, Only::Among(1, &[1, 5])), allowed(9, Only::Without(2, 4)), allowed(2, Only::Any)];
    let other = [allowed(16, Only::Among(0, &[7])), allowed(9, Only::Any), allowed(2, Only::With(1, 1))];
    compare(&[&one, &other]);
    compare(&[&other, &one]);
}

#[test]
#[should_panic(expected = "a value is too large")]
fn a_value_of_more_than_32_bits_is_no_value() {
    Program::of(&[&[allowed(16, Only::Among(1, &[1 << 32]))]]);
}
