//! Seccomp profiles to programs, compiled on the host with the library that runc uses, so that the same profile gives
//! the same filter. The agent only loads what it is given.

use super::error::{ConfigError, invalid, unsupported};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use std::io::{Read, Seek};

/// A filter, ready for seccomp(2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// `struct sock_filter`s, 8 bytes each; none means no filter.
    pub instructions: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// Compiles a profile.
pub fn compile(given: &LinuxSeccomp) -> Result<Program, ConfigError> {
    let syscalls = given.syscalls().as_deref().unwrap_or(&[]);
    refuse_notify(given, syscalls)?;
    let default = action(given.default_action(), given.default_errno_ret()).ok_or_else(|| {
        unsupported("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY is not supported by husk")
    })?;
    let failed = |field: &str| {
        let field = format!("linux.seccomp{field}");
        move |error: libseccomp::error::SeccompError| invalid(field.clone(), error.to_string())
    };
    let mut filter = ScmpFilterContext::new(default).map_err(failed(".defaultAction"))?;
    let architectures = architectures(given)?;
    for (index, architecture) in architectures.iter().enumerate() {
        filter.add_arch(*architecture).map_err(failed(&format!(".architectures[{index}]")))?;
    }
    filter.set_ctl_nnp(false).map_err(failed(""))?;
    // A binary tree of rules instead of a list, from the length on at which runc does so too.
    if syscalls.iter().map(|rule| rule.names().len()).sum::<usize>() > 32 {
        let _ = filter.set_ctl_optimize(2);
    }
    for (index, rule) in syscalls.iter().enumerate() {
        add(&mut filter, &format!("linux.seccomp.syscalls[{index}]"), rule, default)?;
    }
    let mut instructions = Vec::new();
    if !matches!(given.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace) {
        instructions = unknown_calls::program(&architectures, syscalls);
    }
    instructions.extend(export(&filter).map_err(|reason| invalid("linux.seccomp", reason))?);
    Ok(Program { instructions, flags: flags(given)? })
}

/// The actions that husk honours, for `features`.
pub const ACTIONS: [Action; 8] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

/// The comparisons that husk honours, for `features`.
pub const OPERATORS: [Operator; 7] = [
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpMaskedEq,
    Operator::ScmpCmpNe,
];

/// The flags that husk honours, for `features`.
pub const FLAGS: [Flag; 3] =
    [Flag::SeccompFilterFlagTsync, Flag::SeccompFilterFlagSpecAllow, Flag::SeccompFilterFlagLog];

fn refuse_notify(given: &LinuxSeccomp, syscalls: &[LinuxSyscall]) -> Result<(), ConfigError> {
    let reason = "SCMP_ACT_NOTIFY is not supported by husk: no descriptor leads out of a machine";
    for (index, rule) in syscalls.iter().enumerate() {
        if rule.action() == Action::ScmpActNotify {
            return Err(unsupported(format!("linux.seccomp.syscalls[{index}].action"), reason));
        }
    }
    if given.default_action() == Action::ScmpActNotify {
        return Err(unsupported("linux.seccomp.defaultAction", reason));
    }
    if given.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
        return Err(unsupported("linux.seccomp.listenerPath", reason));
    }
    Ok(())
}

/// Adds a rule for each of its calls. A call that the library does not know is passed over, as runc does: profiles list
/// calls of kernels to come.
fn add(
    filter: &mut ScmpFilterContext,
    field: &str,
    rule: &LinuxSyscall,
    default: ScmpAction,
) -> Result<(), ConfigError> {
    let Some(action) = action(rule.action(), rule.errno_ret()) else { return Ok(()) };
    if action == default {
        return Ok(());
    }
    let conditions = rule.args().iter().flatten().enumerate();
    let conditions: Vec<(u32, ScmpArgCompare)> = conditions
        .map(|(index, arg)| condition(&format!("{field}.args[{index}]"), arg))
        .collect::<Result<_, _>>()?;
    let mut places: Vec<u32> = conditions.iter().map(|(place, _)| *place).collect();
    places.sort_unstable();
    let repeated = places.windows(2).any(|pair| pair.first() == pair.last());
    let conditions: Vec<ScmpArgCompare> = conditions.into_iter().map(|(_, condition)| condition).collect();
    for (index, name) in rule.names().iter().enumerate() {
        let field = format!("{field}.names[{index}]");
        if name.is_empty() {
            return Err(invalid(field, "empty string is not a valid syscall"));
        }
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        // Two conditions on one argument are alternatives for runc, each a rule of its own.
        let added = if repeated {
            conditions.iter().try_for_each(|one| filter.add_rule_conditional(action, call, &[*one]).map(drop))
        } else {
            filter.add_rule_conditional(action, call, &conditions).map(drop)
        };
        added.map_err(|error| invalid(field, format!("{name}: {error}")))?;
    }
    Ok(())
}

fn condition(field: &str, arg: &LinuxSeccompArg) -> Result<(u32, ScmpArgCompare), ConfigError> {
    let place = u32::try_from(arg.index()).ok().filter(|place| *place < 6);
    let place =
        place.ok_or_else(|| invalid(format!("{field}.index"), format!("{} is not below 6", arg.index())))?;
    let (operator, value) = match arg.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // In the spec `value` is the mask and `valueTwo` what must be left.
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0)),
    };
    Ok((place, ScmpArgCompare::new(place, operator, value)))
}

/// `None` for the action that husk refuses. Without a number of their own, ERRNO and TRACE give EPERM.
fn action(action: Action, errno: Option<u32>) -> Option<ScmpAction> {
    let number = errno.unwrap_or(libc::EPERM.unsigned_abs()) & 0xffff;
    Some(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(i32::try_from(number).unwrap_or(libc::EPERM)),
        Action::ScmpActTrace => ScmpAction::Trace(u16::try_from(number).unwrap_or(u16::MAX)),
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
        Action::ScmpActNotify => return None,
    })
}

fn architectures(given: &LinuxSeccomp) -> Result<Vec<ScmpArch>, ConfigError> {
    let list = given.architectures().as_deref().unwrap_or(&[]);
    let known = |(index, arch): (usize, &Arch)| {
        let field = format!("linux.seccomp.architectures[{index}]");
        Ok(match arch {
            Arch::ScmpArchNative => ScmpArch::Native,
            Arch::ScmpArchX86 => ScmpArch::X86,
            Arch::ScmpArchX86_64 => ScmpArch::X8664,
            Arch::ScmpArchX32 => ScmpArch::X32,
            Arch::ScmpArchArm => ScmpArch::Arm,
            Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
            Arch::ScmpArchMips => ScmpArch::Mips,
            Arch::ScmpArchMips64 => ScmpArch::Mips64,
            Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
            Arch::ScmpArchMipsel => ScmpArch::Mipsel,
            Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
            Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
            Arch::ScmpArchPpc => ScmpArch::Ppc,
            Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
            Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
            Arch::ScmpArchS390 => ScmpArch::S390,
            Arch::ScmpArchS390x => ScmpArch::S390X,
            Arch::ScmpArchParisc => ScmpArch::Parisc,
            Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
            Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
            other => return Err(unsupported(field, format!("{other} is not known to the seccomp library"))),
        })
    };
    list.iter().enumerate().map(known).collect()
}

/// Without any flags in the profile runc allows speculation as if there were no filter; so do we. TSYNC concerns the
/// threads of whoever loads the filter, and the agent's loader has one.
fn flags(given: &LinuxSeccomp) -> Result<u32, ConfigError> {
    let Some(list) = given.flags().as_deref() else { return Ok(SPEC_ALLOW) };
    list.iter().enumerate().try_fold(0, |bits, (index, flag)| match flag {
        Flag::SeccompFilterFlagTsync => Ok(bits),
        Flag::SeccompFilterFlagLog => Ok(bits | LOG),
        Flag::SeccompFilterFlagSpecAllow => Ok(bits | SPEC_ALLOW),
        Flag::SeccompFilterFlagWaitKillableRecv => Err(unsupported(
            format!("linux.seccomp.flags[{index}]"),
            "belongs to SCMP_ACT_NOTIFY, which husk does not support",
        )),
    })
}

/// `linux/seccomp.h`, SECCOMP_FILTER_FLAG_*.
const LOG: u32 = 1 << 1;
const SPEC_ALLOW: u32 = 1 << 2;

/// The library writes programs to descriptors only (before its version 2.6): to one that is memory.
fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, String> {
    let memory = nix::sys::memfd::memfd_create("seccomp", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut memory = std::fs::File::from(memory.map_err(|errno| errno.desc().to_owned())?);
    filter.export_bpf(&memory).map_err(|error| error.to_string())?;
    let mut instructions = Vec::new();
    memory
        .rewind()
        .and_then(|()| memory.read_to_end(&mut instructions))
        .map_err(|error| error.to_string())?;
    Ok(instructions)
}

mod unknown_calls {
    //! Calls that are newer than anything in a profile get ENOSYS instead of the profile's default action, so that
    //! programs fall back to older calls. runc puts such a prologue before its filters; programs count on it.

    use libseccomp::{ScmpArch, ScmpSyscall};
    use oci_spec::runtime::LinuxSyscall;

    /// For each architecture: its number, whether x32 calls must be passed over, the number of the newest call.
    pub fn program(architectures: &[ScmpArch], rules: &[LinuxSyscall]) -> Vec<u8> {
        let mut considered = vec![ScmpArch::native()];
        considered.extend(architectures.iter().copied().filter(|arch| *arch != ScmpArch::Native));
        considered.dedup();
        let mut program = Vec::new();
        let mut done = Vec::new();
        for architecture in considered {
            let (Some(audit), Some(newest)) = (audit(architecture), newest(architecture, rules)) else {
                continue;
            };
            if !done.contains(&audit) {
                done.push(audit);
                program.extend(section(audit, newest).iter().flat_map(|instruction| instruction.bytes()));
            }
        }
        program
    }

    fn newest(architecture: ScmpArch, rules: &[LinuxSyscall]) -> Option<u32> {
        let numbers = rules.iter().flat_map(|rule| rule.names()).filter_map(|name| {
            let call = ScmpSyscall::from_name_by_arch(name, architecture).ok()?;
            // The library has negative numbers for calls that the architecture lacks.
            u32::try_from(call.as_raw_syscall()).ok()
        });
        numbers.max().filter(|number| *number > 0)
    }

    /// `linux/audit.h`. Guests run on these two; x32 is not built into their kernel.
    fn audit(architecture: ScmpArch) -> Option<u32> {
        match architecture {
            ScmpArch::X8664 => Some(0xc000_003e),
            ScmpArch::X86 => Some(0x4000_0003),
            ScmpArch::Aarch64 => Some(0xc000_00b7),
            ScmpArch::Arm => Some(0x4000_0028),
            _ => None,
        }
    }

    fn section(audit: u32, newest: u32) -> [Instruction; 6] {
        [
            Instruction::load(4), // the architecture
            Instruction::jump(JUMP_EQUAL, audit, 0, 4),
            Instruction::load(0),                            // the call's number
            Instruction::jump(JUMP_AT_LEAST, 1 << 30, 2, 0), // x32
            Instruction::jump(JUMP_ABOVE, newest, 0, 1),
            Instruction::give(0x0005_0000 | 38), // SECCOMP_RET_ERRNO, ENOSYS
        ]
    }

    /// `struct sock_filter`.
    struct Instruction {
        code: u16,
        yes: u8,
        no: u8,
        value: u32,
    }

    impl Instruction {
        fn load(offset: u32) -> Instruction {
            Instruction { code: LOAD, yes: 0, no: 0, value: offset }
        }

        fn jump(code: u16, value: u32, yes: u8, no: u8) -> Instruction {
            Instruction { code, yes, no, value }
        }

        fn give(value: u32) -> Instruction {
            Instruction { code: RETURN, yes: 0, no: 0, value }
        }

        fn bytes(&self) -> [u8; 8] {
            let [a, b] = self.code.to_ne_bytes();
            let [c, d, e, f] = self.value.to_ne_bytes();
            [a, b, self.yes, self.no, c, d, e, f]
        }
    }

    /// `linux/bpf_common.h`: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_{JEQ,JGE,JGT}|BPF_K, BPF_RET|BPF_K.
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_AT_LEAST: u16 = 0x35;
    const JUMP_ABOVE: u16 = 0x25;
    const RETURN: u16 = 0x06;
}

#[cfg(test)]
mod tests;
