//! What a process finds inside.

use super::stand::{Stand, container};
use husk_protocol::*;

#[test]
fn the_inside_looks_as_the_spec_says() {
    let Some(mut stand) = Stand::open("inside") else { return };
    let script = "
        echo pid $$; hostname; pwd; echo home $HOME
        id -u; grep -E '^(CapBnd|CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
        ls /dev | sort | tr '\\n' ' '; echo
        ls /proc/self/fd | wc -l
        grep '^0:' /proc/self/cgroup; ulimit -n
        cat /proc/keys | wc -c; ls /sys/firmware | wc -l
        echo x > /proc/sys/kernel/domainname || echo read-only
        ls /proc/1/root/run | wc -l
        cat /proc/self/oom_score_adj; umask";
    let run = stand.run(container(script));
    let expected = "pid 1
inside
/
home /root
0
CapInh:\t0000000000000000
CapPrm:\t0000000020000420
CapEff:\t0000000020000420
CapBnd:\t0000000020000420
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t0
core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 
4
0::/
1024
0
0
read-only
0
0
0022
";
    assert_eq!(run.stdout, expected, "{}", run.stderr);
}

#[test]
fn a_container_with_a_user_namespace_is_root_of_its_own() {
    let Some(mut stand) = Stand::open("user namespace") else { return };
    let chowned =
        std::process::Command::new("chown").args(["-Rh", "100000:100000"]).arg(stand.root()).status();
    assert!(chowned.unwrap().success());
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && echo null; touch /made && ls -ln /made | cut -d' ' -f1-8 | tr -s ' '; ulimit -n; ls /sys | grep -c kernel";
    let mut container = container(script);
    container.namespaces.user = true;
    container.uid_map = vec![IdMap { inside: 0, outside: 100_000, size: 65_536 }];
    container.gid_map = container.uid_map.clone();
    let mut running = stand.start(container);
    let exited = stand.exited(running.key);
    let run = running.finish(exited);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[..3], ["0", " 0 100000 65536", "null"], "{run:?}");
    assert_eq!(lines[4..], ["1024", "1"], "{run:?}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(stand.root().join("made")).unwrap().uid(), 100_000);
}

#[test]
fn clocks_of_a_time_namespace_are_shifted() {
    let Some(mut stand) = Stand::open("time namespace") else { return };
    let mut container = container("cut -d. -f1 /proc/uptime");
    container.namespaces.time = true;
    let day = TimeOffset { clock: "boottime".to_owned(), seconds: 10_000_000, nanoseconds: 0 };
    container.time_offsets = vec![day];
    let run = stand.run(container);
    assert!(run.stdout.trim().parse::<u64>().unwrap() >= 10_000_000, "{run:?}");
}

#[test]
fn copy_up_fills_a_tmpfs_with_what_it_covers() {
    let Some(mut stand) = Stand::open("copy up") else { return };
    std::fs::create_dir(stand.root().join("etc/inner")).unwrap();
    std::fs::write(stand.root().join("etc/inner/file"), "content").unwrap();
    let mut container = container("cat /etc/inner/file; echo changed > /etc/inner/file; stat -c %a /etc");
    let mut tmpfs = container.mounts[1].clone();
    tmpfs.destination = "/etc".to_owned();
    tmpfs.data = String::new();
    tmpfs.copy_up = true;
    container.mounts.push(tmpfs);
    let run = stand.run(container);
    assert_eq!(run.stdout, "content755\n", "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(stand.root().join("etc/inner/file")).unwrap(), "content");
}
