//! A first start from a new template: which of its pages does a start change? Later ones get those before they run, in a few
//! calls, instead of leaving the guest for each of them and having it copied then.
//!
//! It is a real start, of a program that only waits, by the command line; what was changed is read from the machine
//! process's memory map. A template without this is slower to start from and otherwise the same.

use crate::host::pagemap;
use crate::machine::order::MachineConfig;
use crate::machine::template::{Template, Touched};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts a container from `template`, which was made in `templates` for such a machine, and returns what of the guest's
/// memory is the machine's own then. `example` is the text of the specification that it is made with.
pub fn rehearse(
    templates: &Path,
    config: &MachineConfig,
    template: &Template,
    example: &str,
) -> io::Result<Touched> {
    let directory = templates.join(format!("{DIRECTORY}{}", std::process::id()));
    clear(templates)?;
    fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let made = bundle(&directory, example).and_then(|()| configure(&directory, templates, config));
    let touched = made.and_then(|()| start(template, &directory));
    let removed = fs::remove_dir_all(&directory);
    touched.and_then(|touched| removed.map(|()| touched))
}

/// Removes what makers that were killed have left.
fn clear(templates: &Path) -> io::Result<()> {
    for entry in fs::read_dir(templates)?.flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY));
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// An operator's configuration by which a container without limits gets just that machine.
fn configure(directory: &Path, templates: &Path, config: &MachineConfig) -> io::Result<()> {
    let given = [
        ("vcpus", json!(config.vcpus)),
        ("memory_mib", json!(config.memory_mib)),
        ("kernel_command_line", json!(config.command_line)),
        ("boot_timeout_ms", json!(config.boot_timeout_ms)),
        ("template_directory", json!(templates)),
    ];
    let paths = [("kernel", &config.kernel), ("initrd", &config.initrd)];
    let paths = paths.into_iter().filter_map(|(key, path)| Some((key, json!(path.as_ref()?))));
    // TOML writes numbers and strings as JSON does.
    let lines: String =
        given.into_iter().chain(paths).map(|(key, value)| format!("{key} = {value}\n")).collect();
    // Behind the operator's walls: a rehearsal must not fail where a start does not.
    let walls = json!(config.system_calls);
    fs::write(directory.join(CONFIG), format!("[machine]\n{lines}\n[host]\nsystem_calls = {walls}\n"))
}

fn bundle(directory: &Path, example: &str) -> io::Result<()> {
    let root = directory.join("rootfs");
    fs::create_dir(&root)?;
    let program = root.join("wait");
    fs::write(&program, WAIT)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let mut config: Value = serde_json::from_str(example)?;
    if let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) {
        process.insert("args".into(), json!(["/wait"]));
        process.insert("terminal".into(), json!(false));
    }
    fs::write(directory.join("config.json"), config.to_string())
}

/// In the foreground: should this process be killed, the program sees the end of its input, and the container goes.
fn start(template: &Template, directory: &Path) -> io::Result<Touched> {
    let pid_file = directory.join("pid");
    let mut child = Command::new("/proc/self/exe")
        .arg("--config")
        .arg(directory.join(CONFIG))
        .arg("--root")
        .arg(directory.join("state"))
        .args(["run", "--bundle"])
        .arg(directory)
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(format!("rehearsal-{}", std::process::id()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let runs = child.stdout.take().map(|mut stdout| stdout.read_exact(&mut [0]));
    let seen = match runs {
        Some(Ok(())) => fs::read_to_string(&pid_file).and_then(|pid| touched(template, pid.trim())),
        _ => Err(io::Error::other("it failed")),
    };
    // Closes its input.
    child.wait()?;
    seen
}

/// The guest's pages that are the machine process's own and not the template's file's.
fn touched(template: &Template, pid: &str) -> io::Result<Touched> {
    let process = Path::new("/proc").join(pid);
    let mapped = template.mapped_in(&fs::read_to_string(process.join("maps"))?)?;
    if mapped.is_empty() {
        return Err(io::Error::other("it was a cold start"));
    }
    let mut touched = Touched::default();
    for (range, begin) in mapped {
        let length = range.end.saturating_sub(range.start);
        pagemap::each(&process, begin, length, |from, page| {
            if page.is_present() && !page.is_of_a_file() {
                touched.add(range.start.saturating_add(from));
            }
        })?;
    }
    Ok(touched)
}

const CONFIG: &str = "husk.toml";
/// Beside the templates, where root alone can write.
const DIRECTORY: &str = ".rehearsal-";

/// An x86_64 ELF program that writes a byte and ends when its input does: one header, one segment, a few instructions.
#[rustfmt::skip]
const WAIT: &[u8] = &[
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0,     // executable, x86_64, version 1, entry
    64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,           // where the segments are described
    0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,          // sizes of the headers, one segment
    1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,            // load, read and execute, from the file's beginning
    0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,      // to 0x400000
    0xa3, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0, 0, 0, 0, 0, 0, 0,      // 163 bytes
    0, 0x10, 0, 0, 0, 0, 0, 0,
    0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0,                        // mov eax, SYS_write; mov edi, 1
    0x48, 0x89, 0xe6, 0xba, 1, 0, 0, 0, 0x0f, 0x05,            // mov rsi, rsp; mov edx, 1; syscall
    0x31, 0xc0, 0x31, 0xff,                                    // xor eax, eax (SYS_read); xor edi, edi
    0x48, 0x89, 0xe6, 0xba, 1, 0, 0, 0, 0x0f, 0x05,            // mov rsi, rsp; mov edx, 1; syscall
    0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05,                 // mov eax, SYS_exit; xor edi, edi; syscall
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine;
    use crate::config::operator::{Operator, SystemCalls};

    #[test]
    fn the_machine_is_configured_as_its_operator_has_it() {
        let directory = tempfile::tempdir().unwrap();
        for system_calls in [SystemCalls::Enforce, SystemCalls::Log, SystemCalls::Allow] {
            let mut given = Operator::default();
            given.host.system_calls = system_calls;
            given.machine.memory_mib = 300;
            given.machine.kernel_command_line = "quiet \"x\\".into();
            given.machine.template_directory = directory.path().to_owned();
            let config = machine::unlimited(&given);
            configure(directory.path(), directory.path(), &config).unwrap();
            let read = Operator::parse(&fs::read_to_string(directory.path().join(CONFIG)).unwrap()).unwrap();
            assert_eq!(machine::unlimited(&read), config);
        }
    }

    #[test]
    fn the_program_waits_for_the_end_of_its_input() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        bundle(&directory.path().join("b"), "{}").unwrap();
        let mut child = Command::new(directory.path().join("b/rootfs/wait"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
