//! Bytes to and from processes.

use super::stand::{Run, Stand, container, shell};
use husk_protocol::*;

#[test]
fn end_of_stdin_reaches_the_process() {
    let Some(mut stand) = Stand::open("stdin") else { return };
    use std::io::Write;
    let mut running = stand.start(container("cat | md5sum"));
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(&bytes).unwrap();
    drop(stdin);
    let exited = stand.exited(running.key);
    let run = running.finish(exited);
    assert_eq!(
        run.stdout,
        "e2ab06c9ee4cb2b37e1f7d6d2c3c5a1b  -\n".replace("e2ab06c9ee4cb2b37e1f7d6d2c3c5a1b", &md5(&bytes))
    );
}

/// The checksum by the host's own tool.
fn md5(bytes: &[u8]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut tool = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tool.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = tool.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&output).split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_else() {
    let Some(mut stand) = Stand::open("stopped reader") else { return };
    use std::io::Read;
    let mut running = stand.start(container("head -c 100000000 /dev/zero; echo done >&2; exit 4"));
    running.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    // From now on nobody reads stdout. Execs work all the same.
    let mut exec = stand.exec(shell("echo still here")).unwrap();
    let exited = stand.exited(exec.key);
    assert_eq!(exec.finish(exited).stdout, "still here\n");
    // A signal works too, and the end is told at once though nobody has read.
    let target = Target::Container(ContainerKey(0));
    stand.ask(Call::Signal { target, signal: libc::SIGKILL }).unwrap();
    let exited = stand.exited(running.key);
    assert_eq!(exited.status, ProcessStatus::Signal(9));
    assert!(exited.stdout > 0 && exited.stdout < 100_000_000, "{exited:?}");
    let mut rest = Vec::new();
    running.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() as u64 + 1, exited.stdout, "what was counted arrives");
}

#[test]
fn a_reader_that_leaves_breaks_the_pipe() {
    let Some(mut stand) = Stand::open("broken pipe") else { return };
    let mut running = stand.start(container("yes; echo status $? >&2"));
    use std::io::Read;
    let mut some = [0u8; 1000];
    let mut stdout = running.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let exited = stand.exited(running.key);
    let mut stderr = String::new();
    running.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(exited.status, ProcessStatus::Code(0));
    assert!(stderr.contains("status 141"), "{stderr}"); // 128 + SIGPIPE
}

#[test]
fn a_long_output_arrives_whole() {
    let Some(mut stand) = Stand::open("long output") else { return };
    use std::io::Read;
    let mut running = stand.start(container("head -c 134217728 /dev/zero"));
    let mut stdout = running.stdout.take().unwrap();
    let mut total = 0u64;
    let mut bytes = vec![0u8; 1 << 20];
    loop {
        let length = stdout.read(&mut bytes).unwrap();
        if length == 0 {
            break;
        }
        total += length as u64;
    }
    assert_eq!(total, 128 << 20);
    assert_eq!(stand.exited(running.key).stdout, 128 << 20);
}

#[test]
fn what_a_short_process_wrote_is_never_lost() {
    let Some(mut stand) = Stand::open("short") else { return };
    let mut first = stand.start(container("sleep 1000"));
    for number in 0..100 {
        let mut exec =
            stand.exec(shell(&format!("echo {number}; echo {number} >&2; exit {number}"))).unwrap();
        let exited = stand.exited(exec.key);
        let run = exec.finish(exited);
        let line = format!("{number}\n");
        assert_eq!(run, Run { status: ProcessStatus::Code(number), stdout: line.clone(), stderr: line });
    }
    stand.ask(Call::Signal { target: Target::Process(first.key), signal: libc::SIGKILL }).unwrap();
    let exited = stand.exited(first.key);
    assert_eq!(first.finish(exited).status, ProcessStatus::Signal(9));
}
