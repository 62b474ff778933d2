//! Ways out that runtimes have had (CVE numbers in `docs/threat-model.md`): the author of an image, or of what is bound in, tries them.

use super::stand::{Stand, container, shell};
use super::terminal::create_on_terminal;
use husk_protocol::*;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the author of a volume has made, at `destination`.
fn share(destination: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Share { name: "7".to_owned(), directory: true, recursive: false },
        attributes: MountAttributes::default(),
        propagation: Vec::new(),
        data: String::new(),
        copy_up: false,
    }
}

/// A container whose /dev is a volume; what `runc spec` mounts below it is not there.
fn container_with_dev(script: &str) -> Container {
    let mut container = container(script);
    container.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    container.mounts.insert(0, share("/dev"));
    container
}

/// The kernel's parameters that are the container's own, shown where no image's link or volume is.
fn and_true_proc(container: &mut Container) {
    let mut proc = container.mounts.iter().find(|mount| mount.destination == "/proc").unwrap().clone();
    proc.destination = "/true/proc".to_owned();
    container.mounts.push(proc);
}

#[test]
fn an_image_cannot_lead_mounts_out_of_its_root() {
    let Some(mut stand) = Stand::open("escape") else { return };
    let outside = stand.shares().join("7");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "shared").unwrap();
    let root = stand.root();
    // The image's /escape points at the agent's own directories.
    symlink("/run/husk", root.join("escape")).unwrap();
    symlink("../../../../../../../run/husk", root.join("relative")).unwrap();
    let mut container = container("cat /run/husk/a/file; cat /run/husk/b/file; ls /run/husk");
    for destination in ["/escape/a", "/relative/b"] {
        container.mounts.push(share(destination));
    }
    let run = stand.run(container);
    assert_eq!(run.stdout, "sharedshareda\nb\n", "{}", run.stderr);
}

#[test]
fn proc_is_not_mounted_through_a_link_and_nothing_below_it() {
    let Some(mut stand) = Stand::open("proc") else { return };
    let proc = stand.root().join("proc");
    fs::remove_dir(&proc).unwrap();
    symlink("/tmp", &proc).unwrap();
    let failure = stand.create(container("true")).map(drop).unwrap_err();
    let words = "error mounting \"proc\" to rootfs at \"/proc\": filesystem \"proc\" must be mounted on ordinary directory";
    assert_eq!(failure.message, words);
    fs::remove_file(&proc).unwrap();
    fs::create_dir(&proc).unwrap();

    fs::create_dir(stand.shares().join("7")).unwrap();
    let mut container = container("true");
    container.mounts.push(share("/proc/sys"));
    let failure = stand.create(container).map(drop).unwrap_err();
    assert!(
        failure.message.ends_with("\"/proc/sys\" cannot be mounted because it is inside /proc"),
        "{failure:?}"
    );
}

#[test]
fn nothing_of_the_agents_is_left_in_a_process() {
    let Some(mut stand) = Stand::open("leaks") else { return };
    let script = "ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/mountinfo | wc -l; cat /proc/self/mountinfo; grep -E '^(SigBlk|SigIgn|SigCgt):' /proc/self/status";
    let _first = stand.start(container("sleep 1000"));
    let exec = |stand: &mut Stand| {
        let mut exec = stand.exec(shell(script)).unwrap();
        let exited = stand.exited(exec.key);
        exec.finish(exited)
    };
    let run = exec(&mut stand);
    assert!(run.stdout.starts_with("0 1 2 3 "), "{run:?}"); // 3 is the listing itself
    assert!(!run.stdout.contains("/run/husk"), "{run:?}");
    assert!(run.stdout.contains("SigBlk:\t0000000000000000"), "{run:?}");
    let ignored = run.stdout.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "{run:?}");
}

#[test]
fn a_working_directory_that_leads_out_is_refused() {
    let Some(mut stand) = Stand::open("cwd") else { return };
    let _first = stand.start(container("sleep 1000"));
    for number in 0..64 {
        let mut process = shell("pwd; ls");
        process.cwd = format!("/proc/self/fd/{number}");
        let failure = stand.exec(process).map(drop).unwrap_err();
        assert!(failure.message.starts_with("chdir to cwd"), "{failure:?}");
    }
}

#[test]
fn files_are_hidden_by_what_is_really_null() {
    let Some(mut stand) = Stand::open("masks") else { return };
    let volume = stand.shares().join("7");
    fs::create_dir(&volume).unwrap();
    symlink("/etc/group", volume.join("null")).unwrap();
    let script = "readlink /dev/null; stat -c '%F %t:%T' /etc/passwd; wc -c < /etc/passwd; (echo more >> /etc/passwd); tail -n 1 /etc/group";
    let mut container = container_with_dev(script);
    container.masked_paths.push("/etc/passwd".to_owned());
    fs::write(stand.root().join("etc/group"), "as it was\n").unwrap();
    let run = stand.run(container);
    assert_eq!(run.stdout, "/etc/group\ncharacter special file 1:3\n0\nas it was\n", "{}", run.stderr);
}

#[test]
fn a_terminal_is_shown_at_a_link_as_a_terminal_and_nothing_else() {
    let Some(mut stand) = Stand::open("console") else { return };
    let volume = stand.shares().join("7");
    fs::create_dir_all(volume.join("pts")).unwrap();
    symlink("/proc/sys/net/ipv4/ip_forward", volume.join("console")).unwrap();
    let whole = container("");
    let devpts = whole.mounts.iter().find(|mount| mount.destination == "/dev/pts").unwrap();
    let script = "[ -t 0 ] && echo on one; echo 1 > /proc/sys/net/ipv4/ip_forward; cat /true/proc/sys/net/ipv4/ip_forward";
    let mut linked = container_with_dev(script);
    linked.mounts.insert(1, devpts.clone());
    // A new network namespace may begin with what the host's has.
    linked.sysctl = vec![("net.ipv4.ip_forward".into(), "0".into())];
    and_true_proc(&mut linked);
    let (key, mut terminal) = create_on_terminal(&mut stand, linked).unwrap();
    stand.ask(Call::Start { container: ContainerKey(0) }).unwrap();
    stand.exited(key);
    let mut said = String::new();
    let _ = std::io::Read::read_to_string(&mut terminal, &mut said);
    assert!(said.starts_with("on one\r\n") && said.ends_with("\r\n0\r\n"), "{said:?}");
    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();

    // What is no multiplexer: a file, and what would keep a reader waiting.
    fs::write(volume.join("pts/ptmx"), "").unwrap();
    for _ in 0..2 {
        let failure = create_on_terminal(&mut stand, container_with_dev("true")).map(drop).unwrap_err();
        assert!(failure.message.contains("open /dev/ptmx"), "{failure:?}");
        fs::remove_file(volume.join("pts/ptmx")).unwrap();
        nix::unistd::mkfifo(&volume.join("pts/ptmx"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
}

#[test]
fn parameters_are_written_to_the_kernel_whatever_the_image_has_at_proc() {
    let Some(mut stand) = Stand::open("parameters") else { return };
    let place = stand.root().join("proc/sys/net/ipv4");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("ip_forward"), "the image's\n").unwrap();
    symlink("/etc/group", place.join("ip_default_ttl")).unwrap();
    fs::write(stand.root().join("etc/group"), "as it was\n").unwrap();
    let names = "ip_forward ip_default_ttl";
    let script =
        format!("for name in {names}; do cat /proc/sys/net/ipv4/$name /true/proc/sys/net/ipv4/$name; done");
    let mut container = container(&script);
    and_true_proc(&mut container);
    container.mounts.retain(|mount| mount.destination != "/proc");
    container.sysctl =
        vec![("net.ipv4.ip_forward".into(), "1".into()), ("net.ipv4.ip_default_ttl".into(), "77".into())];
    let run = stand.run(container);
    assert_eq!(run.stdout, "the image's\n1\nas it was\n77\n", "{}", run.stderr);
}

#[test]
fn an_image_whose_dev_is_a_link_gets_its_devices_where_that_leads_inside() {
    let Some(mut stand) = Stand::open("dev") else { return };
    let agents = format!("/proc/{}/root/run/husk", stand.agent_pid());
    let listed = || {
        let mut names: Vec<_> =
            fs::read_dir(&agents).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listed();
    let dev = stand.root().join("dev");
    for leads in ["/run/husk", "../../../run/husk", "/tmp/../run/husk", "/run/husk/new"] {
        let _ = fs::remove_dir_all(&dev).or_else(|_| fs::remove_file(&dev));
        symlink(leads, &dev).unwrap();
        let script =
            "stat -c '%t:%T' /dev/null; [ -e /dev/pts/ptmx ] && [ -L /dev/ptmx ] && cd /dev && pwd -P";
        let run = stand.run(container(script));
        let inside = if leads.ends_with("new") { "/run/husk/new" } else { "/run/husk" };
        assert_eq!(run.stdout, format!("1:3\n{inside}\n"), "{leads}: {}", run.stderr);
        assert_eq!(listed(), before, "{leads}");
        stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    }
}

/// Ends whoever goes on as long as this is true, however its scope is left.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_place_that_is_exchanged_for_a_link_while_it_is_mounted_on_stays_inside() {
    let Some(mut stand) = Stand::open("exchange") else { return };
    let volume = stand.shares().join("7");
    fs::create_dir_all(volume.join("place")).unwrap();
    let (place, link) = (volume.join("place"), volume.join("link"));
    symlink("../../../../run/husk/root", &link).unwrap();
    let agents = format!("/proc/{}/root/run/husk", stand.agent_pid());
    let listed = || fs::read_dir(format!("{agents}/root")).unwrap().count();
    // The first container's root is where it will be.
    stand.run(container("true"));
    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    let before = listed();
    let going = AtomicBool::new(true);
    let (mut straight, mut led) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &place, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                std::thread::yield_now();
            }
        });
        let _stopped = Stopped(&going);
        for _ in 0..60 {
            // The volume, and in it the volume again: wherever that went, it has to be seen from inside.
            let mut container = container("cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(volume/|run)'");
            container.mounts.push(share("/volume"));
            container.mounts.push(share("/volume/place"));
            match stand.create(container) {
                Ok(mut running) => {
                    stand.ask(Call::Start { container: ContainerKey(0) }).unwrap();
                    let exited = stand.exited(running.key);
                    let run = running.finish(exited);
                    match run.stdout.trim() {
                        "/run/husk/root" => led += 1,
                        // What it was mounted on has another name since.
                        "/volume/place" | "/volume/link" => straight += 1,
                        other => panic!("mounted at {other:?}: {}", run.stderr),
                    }
                    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
                }
                Err(failure) => assert!(failure.message.contains("/volume/place"), "{failure:?}"),
            }
            assert_eq!(listed(), before);
        }
    });
    eprintln!("{straight} straight, {led} led elsewhere");
    assert!(straight > 0 && led > 0, "nothing was exchanged in time: {straight} straight, {led} led");
}
