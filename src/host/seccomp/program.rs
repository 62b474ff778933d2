//! A list becomes a program: all of it constant, and done when husk is built.
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // a mistake is an error of the compiler's, not of a start

use super::{Allowed, Only, Program};

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    pub(super) value: u32,
}

impl Program {
    /// These lists together. A call that is named more than once may have the arguments of all.
    ///
    /// # Panics
    /// When they are empty or too long, or a value is more than 32 bits. It is to be called where constants are made.
    pub const fn of(lists: &[&[Allowed]]) -> Program {
        let calls = Calls::sorted(lists);
        let mut program = Program { instructions: [Instruction::give(0); MOST], length: 0, own_process: 0 };
        assert!(calls.numbers > 0, "a list without calls");
        let tree = 2 * calls.numbers - 1;
        let blocks = HEAD + tree;
        let ends = Ends::behind(blocks + calls.in_blocks);
        program.add(Instruction::load(ARCHITECTURE_AT));
        program.jump(EQUAL, ARCHITECTURE, HEAD - 1, ends.otherwise);
        program.add(Instruction::load(NUMBER_AT));
        program.halve(&calls, 0, calls.numbers, blocks, &ends);
        let mut number = 0;
        while number < calls.numbers {
            program.block(&calls, calls.groups[number], &ends);
            number += 1;
        }
        assert!(program.length == ends.pass, "the program is not as long as it was taken to be");
        program.add(Instruction::give(libc::SECCOMP_RET_ALLOW));
        program.add(Instruction::give(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()));
        program.add(Instruction::give(libc::SECCOMP_RET_KILL_PROCESS));
        program
    }

    const fn add(&mut self, instruction: Instruction) {
        assert!(self.length < MOST, "a list is too long");
        self.instructions[self.length] = instruction;
        self.length += 1;
    }

    /// A comparison of what was loaded last, and where it goes on.
    const fn jump(&mut self, code: u16, value: u32, yes: usize, no: usize) {
        let next = self.length + 1;
        let instruction = Instruction { code, yes: distance(next, yes), no: distance(next, no), value };
        self.add(instruction);
    }

    /// Which of the calls `from..to`, of which there is one at least, is it?
    const fn halve(&mut self, calls: &Calls, from: usize, to: usize, blocks: usize, ends: &Ends) {
        match to - from {
            1 => {
                let Group { number, at_once, block, .. } = calls.groups[from];
                let place = match at_once {
                    Some(Answer::Pass) => ends.pass,
                    Some(Answer::Unknown) => ends.unknown,
                    None => blocks + block,
                };
                self.jump(EQUAL, narrow(number as u64), place, ends.otherwise);
            }
            count => {
                let lower = count / 2;
                let next = self.length + 1;
                let at_least = narrow(calls.groups[from + lower].number as u64);
                // As many leaves as numbers, and one comparison less between them.
                self.jump(AT_LEAST, at_least, next + 2 * lower - 1, next);
                self.halve(calls, from, from + lower, blocks, ends);
                self.halve(calls, from + lower, to, blocks, ends);
            }
        }
    }

    /// Are the arguments of a call right? Each way in which they may be is tried in turn.
    const fn block(&mut self, calls: &Calls, group: Group, ends: &Ends) {
        if group.at_once.is_some() {
            return;
        }
        let mut at = group.begin;
        while at < group.end {
            match calls.sorted[at].only {
                Only::Any | Only::Unknown => {}
                Only::Among(argument, values) => {
                    self.add(Instruction::load(argument_at(argument)));
                    let mut value = 0;
                    while value < values.len() {
                        self.jump(EQUAL, narrow(values[value]), ends.pass, self.length + 1);
                        value += 1;
                    }
                }
                Only::Without(argument, bits) => {
                    self.add(Instruction::load(argument_at(argument)));
                    self.jump(ANY_OF, narrow(bits), self.length + 1, ends.pass);
                }
                Only::With(argument, bits) => {
                    self.add(Instruction::load(argument_at(argument)));
                    self.add(Instruction { code: AND, yes: 0, no: 0, value: narrow(bits) });
                    self.jump(EQUAL, narrow(bits), ends.pass, self.length + 1);
                }
                Only::OwnProcess(argument) => {
                    assert!(self.own_process == 0, "two calls take the number of the process");
                    self.add(Instruction::load(argument_at(argument)));
                    self.own_process = self.length;
                    self.jump(EQUAL, 0, ends.pass, self.length + 1);
                }
            }
            at += 1;
        }
        let skipped = ends.otherwise - self.length - 1;
        self.add(Instruction { code: ALWAYS, yes: 0, no: 0, value: narrow(skipped as u64) });
    }
}

impl Instruction {
    const fn load(offset: u32) -> Instruction {
        Instruction { code: LOAD, yes: 0, no: 0, value: offset }
    }

    const fn give(value: u32) -> Instruction {
        Instruction { code: GIVE, yes: 0, no: 0, value }
    }
}

/// Where a program gives its answers: at its end, one after the other.
struct Ends {
    pass: usize,
    unknown: usize,
    otherwise: usize,
}

impl Ends {
    const fn behind(length: usize) -> Ends {
        Ends { pass: length, unknown: length + 1, otherwise: length + 2 }
    }
}

/// What is on all lists, by number.
struct Calls {
    sorted: [Allowed; MOST_CALLS],
    length: usize,
    groups: [Group; MOST_CALLS],
    /// How many groups there are.
    numbers: usize,
    /// How many instructions look at arguments.
    in_blocks: usize,
}

/// All that is said of one number.
#[derive(Clone, Copy)]
struct Group {
    number: libc::c_long,
    begin: usize,
    end: usize,
    /// What comes of it whatever its arguments are.
    at_once: Option<Answer>,
    /// Where it has its block, among all of them.
    block: usize,
}

#[derive(Clone, Copy)]
enum Answer {
    Pass,
    Unknown,
}

impl Calls {
    const fn sorted(lists: &[&[Allowed]]) -> Calls {
        let nothing = Allowed { number: libc::c_long::MAX, only: Only::Any };
        let none = Group { number: nothing.number, begin: 0, end: 0, at_once: None, block: 0 };
        let mut calls = Calls {
            sorted: [nothing; MOST_CALLS],
            length: 0,
            groups: [none; MOST_CALLS],
            numbers: 0,
            in_blocks: 0,
        };
        let mut list = 0;
        while list < lists.len() {
            let mut call = 0;
            while call < lists[list].len() {
                calls.insert(lists[list][call]);
                call += 1;
            }
            list += 1;
        }
        let mut begin = 0;
        while begin < calls.length {
            begin = calls.group(begin);
        }
        calls
    }

    const fn insert(&mut self, allowed: Allowed) {
        assert!(self.length < MOST_CALLS, "too many calls");
        let mut at = self.length;
        while at > 0 && self.sorted[at - 1].number > allowed.number {
            self.sorted[at] = self.sorted[at - 1];
            at -= 1;
        }
        self.sorted[at] = allowed;
        self.length += 1;
    }

    /// Takes all that is said of the number at `begin`, and gives where the next one begins.
    const fn group(&mut self, begin: usize) -> usize {
        let number = self.sorted[begin].number;
        let (mut end, mut at_once, mut in_block) = (begin, None, 1);
        while end < self.length && self.sorted[end].number == number {
            match self.sorted[end].only {
                Only::Any => at_once = Some(Answer::Pass),
                Only::Unknown => at_once = Some(Answer::Unknown),
                Only::Among(_, values) => in_block += 1 + values.len(),
                Only::Without(..) | Only::OwnProcess(_) => in_block += 2,
                Only::With(..) => in_block += 3,
            }
            end += 1;
        }
        self.groups[self.numbers] = Group { number, begin, end, at_once, block: self.in_blocks };
        self.numbers += 1;
        if at_once.is_none() {
            self.in_blocks += in_block;
        }
        end
    }
}

/// How far it is from the next instruction to one behind it.
const fn distance(next: usize, to: usize) -> u8 {
    let distance = to - next;
    assert!(distance <= u8::MAX as usize, "a jump is too long");
    distance as u8
}

const fn narrow(value: u64) -> u32 {
    assert!(value <= u32::MAX as u64, "a value is too large");
    value as u32
}

/// Where the lower half of an argument is in `struct seccomp_data`.
const fn argument_at(argument: u8) -> u32 {
    assert!(argument < 6, "there are six arguments");
    let lower = if cfg!(target_endian = "big") { 4 } else { 0 };
    16 + 8 * argument as u32 + lower
}

/// Longer than any program here.
pub(super) const MOST: usize = 192;
const MOST_CALLS: usize = 72;
/// What comes before the tree.
const HEAD: usize = 3;

// `struct seccomp_data`, `linux/seccomp.h`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;

// `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// `linux/bpf_common.h`: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_{JA,JEQ,JGE,JSET}|BPF_K, BPF_ALU|BPF_AND|BPF_K, BPF_RET|BPF_K.
const LOAD: u16 = 0x20;
const ALWAYS: u16 = 0x05;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_OF: u16 = 0x45;
const AND: u16 = 0x54;
const GIVE: u16 = 0x06;

#[cfg(test)]
mod tests;
