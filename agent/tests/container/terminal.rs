//! Terminals of containers and of what is executed in them.

use super::stand::{Stand, container, shell};
use husk_protocol::*;
use std::os::unix::net::UnixStream;

/// Creates a container whose process has a terminal.
pub fn create_on_terminal(
    stand: &mut Stand,
    mut container: Container,
) -> Result<(ProcessKey, UnixStream), Failure> {
    container.process_key = stand.key();
    let (port, listener) = stand.port();
    let size = TerminalSize { rows: 24, columns: 80 };
    container.process.stdio = Stdio::Terminal { port, size };
    let key = container.process_key;
    stand.ask(Call::Create(Box::new(container)))?;
    let (terminal, _) = listener.accept().unwrap();
    terminal.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    Ok((key, terminal))
}

/// The same, started.
fn start_on_terminal(stand: &mut Stand, script: &str) -> (ProcessKey, UnixStream) {
    let made = create_on_terminal(stand, container(script)).unwrap();
    stand.ask(Call::Start { container: ContainerKey(0) }).unwrap();
    made
}

#[test]
fn a_terminal_is_the_controlling_one_and_can_be_resized() {
    use std::io::{Read, Write};
    let Some(mut stand) = Stand::open("terminal") else { return };
    let script = "tty; stty size; echo typed > /dev/tty; ls -l /dev/console | cut -c1; read l; stty size; echo $l; exit 6";
    let (key, mut terminal) = start_on_terminal(&mut stand, script);
    let mut first = vec![0; "/dev/pts/0\r\n24 80\r\ntyped\r\nc\r\n".len()];
    terminal.read_exact(&mut first).unwrap();
    assert_eq!(String::from_utf8_lossy(&first), "/dev/pts/0\r\n24 80\r\ntyped\r\nc\r\n");
    stand.ask(Call::Resize { process: key, size: TerminalSize { rows: 50, columns: 132 } }).unwrap();
    terminal.write_all(b"word\n").unwrap();
    let mut rest = String::new();
    terminal.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "word\r\n50 132\r\nword\r\n");
    let exited = stand.exited(key);
    assert_eq!(exited.status, ProcessStatus::Code(6));
    assert_eq!(exited.stdout, (first.len() + rest.len()) as u64);
}

#[test]
fn a_terminal_that_the_host_closes_hangs_up() {
    let Some(mut stand) = Stand::open("hang-up") else { return };
    use std::io::Read;
    let script = "trap 'exit 9' HUP; echo; while :; do sleep 0.1; done";
    let (key, mut terminal) = start_on_terminal(&mut stand, script);
    terminal.read_exact(&mut [0; 2]).unwrap();
    drop(terminal);
    assert_eq!(stand.exited(key).status, ProcessStatus::Code(9));
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    use std::io::Read;
    let Some(mut stand) = Stand::open("exec terminal") else { return };
    let _first = stand.start(container("sleep 1000"));
    let mut process = shell("tty; exit 2");
    let (port, listener) = stand.port();
    process.stdio = Stdio::Terminal { port, size: TerminalSize::default() };
    let key = stand.key();
    stand.ask(Call::Exec(Box::new(Exec { container: ContainerKey(0), key, process }))).unwrap();
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "/dev/pts/0\r\n");
    let exited = stand.exited(key);
    assert_eq!((exited.status, exited.stdout), (ProcessStatus::Code(2), text.len() as u64));
}
