//! A terminal: typed at, resized, hung up, handed over by a console socket.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    pty::Terminal,
    runtime::{Runtime, wait},
    scenario::fresh_id,
};
use serde_json::json;
use std::{
    io::{IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    time::Duration,
};

fn with_terminal(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(Image::Busybox, args);
    bundle.set("/process/terminal", json!(true));
    bundle
}

#[test]
fn an_interactive_shell_on_a_terminal() {
    let before = Census::take();
    {
        let bundle = with_terminal(&["sh"]);
        let command = Runtime::Husk.command([
            "run".as_ref(),
            "-b".as_ref(),
            bundle.write().as_os_str(),
            fresh_id().as_ref(),
        ]);
        let mut terminal = Terminal::spawn(command, 33, 101);
        terminal.expect("# ");
        terminal.type_in("tty; stty size\n");
        terminal.expect("/dev/pts/0");
        terminal.expect("33 101");
        terminal.resize(44, 132);
        terminal.type_in("sleep 1; stty size\n");
        terminal.expect("44 132");
        // The shell edits its line in raw mode; once something else speaks, it has put the terminal back.
        terminal.type_in("sh -c 'echo go; exec cat'\n");
        terminal.expect("go\r\n");
        terminal.type_in("\x03");
        terminal.expect("^C");
        terminal.type_in("echo interrupted: $?\n");
        terminal.expect("interrupted: 130");
        terminal.type_in("exit 7\n");
        let status = wait(&mut terminal.child, Duration::from_secs(20)).expect("it ends");
        assert_eq!(status.code(), Some(7));
    }
    before.assert_unchanged();
}

#[test]
fn the_console_socket_gets_a_real_terminal() {
    let before = Census::take();
    {
        let bundle = with_terminal(&["sh", "-c", "tty; stty size; read line; echo got $line; exit 3"]);
        let mut bundle = bundle;
        bundle.set("/process/consoleSize", json!({"height": 12, "width": 34}));
        let socket = bundle.path.join("console.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let id = fresh_id();
        let path = bundle.write().to_owned();
        let args = [
            "create".as_ref(),
            "--bundle".as_ref(),
            path.as_os_str(),
            "--console-socket".as_ref(),
            socket.as_os_str(),
            id.as_ref(),
        ];
        let creating = std::thread::spawn({
            let mut command = Runtime::Husk.command(args);
            move || command.status().expect("husk can be run")
        });
        let (stream, _) = listener.accept().expect("husk connects");
        let (name, master) = receive(stream.as_raw_fd());
        assert!(!name.is_empty(), "the message names the terminal");
        assert!(creating.join().expect("it ends").success());
        let mut master = std::fs::File::from(master);
        Runtime::Husk.call(["start", &id]).ok();
        let mut seen = String::new();
        read_until(&mut master, &mut seen, "12 34");
        assert!(seen.contains("/dev/pts/0"), "{seen:?}");
        master.write_all(b"hello\n").expect("it can be typed at");
        read_until(&mut master, &mut seen, "got hello");
        wait_for_stop(&id);
        Runtime::Husk.call(["delete", &id]).ok();
    }
    before.assert_unchanged();
}

#[test]
fn a_terminal_without_a_console_socket_cannot_be_detached() {
    let bundle = with_terminal(&["sh"]);
    let path = bundle.write().to_owned();
    let output =
        Runtime::Husk.call(["create".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("cannot allocate tty if runc will detach without setting console socket"),
        "{output:?}"
    );
}

/// Waits until the container has stopped.
fn wait_for_stop(id: &str) {
    for _ in 0..200 {
        if Runtime::Husk.call(["state", id]).ok().stdout.contains("\"stopped\"") {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{id} does not stop");
}

fn read_until(master: &mut std::fs::File, seen: &mut String, text: &str) {
    let mut bytes = [0; 1024];
    while !seen.contains(text) {
        let length = master.read(&mut bytes).unwrap_or(0);
        assert_ne!(length, 0, "the terminal closed before {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

/// One message with one descriptor, as callers receive it.
fn receive(socket: i32) -> (String, OwnedFd) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([i32; 4]);
    let (length, descriptors) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::empty()).expect("a message");
        let descriptors: Vec<i32> = message
            .cmsgs()
            .expect("control messages")
            .flat_map(|control| match control {
                ControlMessageOwned::ScmRights(descriptors) => descriptors,
                _ => Vec::new(),
            })
            .collect();
        (message.bytes, descriptors)
    };
    assert_eq!(descriptors.len(), 1, "exactly one descriptor");
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    #[allow(unsafe_code)]
    let master = unsafe { OwnedFd::from_raw_fd(descriptors[0]) };
    (String::from_utf8_lossy(&bytes[..length]).into_owned(), master)
}
