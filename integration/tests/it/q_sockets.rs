//! Sockets and FIFOs in what is shared: processes inside and outside reach each other there as they do under runc.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    running::Running,
    runtime::{Output, Runtime},
    scenario::{fresh_id, run, same_as_runc, size},
};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::json;
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A directory of the host to be shared; removed on drop.
struct Outside(PathBuf);

impl Outside {
    fn new() -> Outside {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/var/tmp/husk-it/{}-s{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("it is ours");
        Outside(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Binds the directory, or something in it.
    fn bound(&self, bundle: &mut Bundle, name: &str, to: &str) {
        let mount =
            json!({"destination": to, "type": "bind", "source": self.0.join(name), "options": ["rbind"]});
        bundle.config["mounts"].as_array_mut().expect("an array").push(mount);
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server outside, which everyone may connect to; its socket is gone with it.
struct Server {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Does `each` with every client, one after the other.
    fn at(path: PathBuf, each: impl Fn(UnixStream) + Send + 'static) -> Server {
        let listener = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("it is ours");
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a client");
                let mut first = [0];
                // Who says nothing at all wants us to end.
                match nix::sys::socket::recv(
                    std::os::fd::AsRawFd::as_raw_fd(&client),
                    &mut first,
                    nix::sys::socket::MsgFlags::MSG_PEEK,
                ) {
                    Ok(0) => return,
                    _ => each(client),
                }
            }
        });
        Server { path, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if UnixStream::connect(&self.path).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells its client who it is and what it has sent, when it has sent everything.
fn tell_what_came(mut client: UnixStream) {
    let peer = getsockopt(&client, PeerCredentials).expect("a peer");
    let mut said = Vec::new();
    // A client may be gone before it has heard the answer.
    let _ = client.read_to_end(&mut said);
    let answer = format!("user {} group {}: {} bytes, {}\n", peer.uid(), peer.gid(), said.len(), sum(&said));
    let _ = client.write_all(answer.as_bytes());
}

/// As Docker's daemon answers: on a connection that stays open.
fn answer_requests(client: UnixStream) {
    let mut to = client.try_clone().expect("a descriptor");
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        if line.is_empty() && to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n").is_err() {
            return;
        }
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()))
}

/// Perl: `talk(PATH, TEXT)` says something, shuts its side down, and prints what comes.
const TALK: &str = "use Socket; sub at { my ($p, $t) = @_; socket(my $s, PF_UNIX, $t // SOCK_STREAM, 0) or die; \
     connect($s, sockaddr_un($p)) or do { print \"$p: $!\\n\"; return }; $s } \
     sub talk { my ($p, $x) = @_; my $s = at($p) or return; syswrite $s, $x; shutdown $s, 1; print while <$s>; } $| = 1; ";

fn perl(script: &str) -> Vec<String> {
    vec!["perl".into(), "-e".into(), format!("{TALK}{script}")]
}

fn as_strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn a_client_inside_finds_servers_outside_as_under_runc() {
    let outside = Outside::new();
    let _server = Server::at(outside.path("socket"), tell_what_came);
    let _single = Server::at(outside.path("single"), tell_what_came);
    let _daemon = Server::at(outside.path("docker.sock"), answer_requests);
    drop(UnixListener::bind(outside.path("dead")).expect("a socket"));
    let script = "my $d = at('/run/docker.sock'); for my $n (1, 2) { syswrite $d, \"GET /_ping HTTP/1.1\\r\\nHost: docker\\r\\n\\r\\n\"; \
         while (<$d>) { print; last if /^OK/ } } close $d; talk('/shared/socket', 'hello'); talk('/run/single.sock', 'alone'); talk('/shared/dead', 'x'); \
         talk('/shared/missing', 'x'); at('/shared/socket', SOCK_DGRAM); print `stat -c '%F %a' /shared/socket /run/single.sock`; \
         talk('/shared/socket', 'again')";
    let args = perl(script);
    let output = same_as_runc(Image::Debian, &as_strs(&args), |bundle| {
        outside.bound(bundle, "", "/shared");
        outside.bound(bundle, "single", "/run/single.sock");
        outside.bound(bundle, "docker.sock", "/run/docker.sock");
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1001}));
    });
    let hello = sum(b"hello");
    assert_eq!(output.stdout.matches("200 OK").count(), 2, "{output:?}");
    assert!(output.stdout.contains(&format!("user 1000 group 1001: 5 bytes, {hello}\n")), "{output:?}");
}

#[test]
fn much_goes_through_at_once_and_arrives_whole() {
    let outside = Outside::new();
    // Sends back what comes, as it comes.
    let _server = Server::at(outside.path("echo"), |client| {
        thread::spawn(move || {
            let mut to = client.try_clone().expect("a descriptor");
            let mut from = client;
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    });
    let _slow = Server::at(outside.path("slow"), |mut client| {
        thread::spawn(move || {
            // More than anybody holds for a client that does not read.
            let _ = client.read(&mut [0]);
            let _ = client.write_all(&vec![7; 8 << 20]);
        });
    });
    let (mebibytes, clients) = (size(64, 8), size(100, 100));
    let script = format!(
        "use Digest::MD5; use IO::Select; sub md5 {{ my $d = Digest::MD5->new; $d->add($_[0]) for 1 .. $_[1]; $d->hexdigest }} \
         my $lazy = at('/shared/slow'); syswrite $lazy, 'x'; \
         my $x = join('', map {{ chr($_ * 7 % 251) }} 0 .. 65535); my $s = at('/shared/echo'); \
         if (!fork) {{ for (1 .. {mebibytes} * 16) {{ my $n = 0; $n += syswrite($s, $x, 65536 - $n, $n) while $n < 65536 }} shutdown $s, 1; exit }} \
         my $d = Digest::MD5->new; while (sysread $s, my $b, 1 << 16) {{ $d->add($b) }} \
         print $d->hexdigest eq md5($x, {mebibytes} * 16) ? \"whole\\n\" : \"not the same\\n\"; \
         my @all = map {{ at('/shared/echo') }} 1 .. {clients}; syswrite $all[$_], \"client $_\\n\" for 0 .. $#all; \
         my $good = grep {{ my $c = $all[$_]; <$c> eq \"client $_\\n\" }} 0 .. $#all; print \"$good of \" . @all . \"\\n\"; \
         my $t = 0; while (sysread $lazy, my $b, 1 << 16) {{ $t += length $b }} print \"$t\\n\""
    );
    let output = same_as_runc(Image::Debian, &as_strs(&perl(&script)), |bundle| {
        outside.bound(bundle, "", "/shared");
    });
    assert_eq!(output.stdout, format!("whole\n{clients} of {clients}\n8388608\n"));
}

#[test]
fn many_connections_one_after_another_leave_nothing_behind() {
    let outside = Outside::new();
    let _server = Server::at(outside.path("socket"), tell_what_came);
    // More than there may be at a time; the server closes first, and so does the client.
    let count = size(1500, 1100);
    let script = format!(
        "my $n = 0; for (1 .. {count}) {{ my $s = at('/shared/socket') or last; syswrite $s, 'x'; shutdown $s, 1 if $_ % 2; \
         close $s, next unless $_ % 2; my $l = <$s>; $n++ if $l =~ /1 bytes/; }} print \"$n\\n\""
    );
    let output = run(Runtime::Husk, Image::Debian, &as_strs(&perl(&script)), |bundle| {
        outside.bound(bundle, "", "/shared");
    });
    assert_eq!(output.ok().stdout, format!("{}\n", count / 2));
}

#[test]
fn a_server_that_starts_again_is_found_again() {
    let outside = Outside::new();
    let first = Server::at(outside.path("socket"), tell_what_came);
    let script = "talk('/shared/socket', 'one'); open my $f, '>', '/shared/ready'; close $f; \
         select undef, undef, undef, 0.1 until -e '/shared/gone'; talk('/shared/socket', 'nobody'); \
         open $f, '>', '/shared/waiting'; close $f; \
         select undef, undef, undef, 0.1 until -e '/shared/again'; talk('/shared/socket', 'two')";
    let there = |name: &str| {
        let path = outside.path(name);
        (0..600).any(|_| {
            thread::sleep(Duration::from_millis(100));
            path.exists()
        })
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            run(Runtime::Husk, Image::Debian, &as_strs(&perl(script)), |bundle| {
                outside.bound(bundle, "", "/shared");
            })
        });
        assert!(there("ready"));
        drop(first);
        fs::write(outside.path("gone"), "").expect("a file");
        assert!(there("waiting"));
        let _second = Server::at(outside.path("socket"), tell_what_came);
        fs::write(outside.path("again"), "").expect("a file");
        let output = running.join().expect("it ends").ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{output:?}");
        assert!(lines[0].contains("3 bytes") && lines[2].contains("3 bytes"), "{output:?}");
        assert_eq!(lines[1], "/shared/socket: No such file or directory");
    });
}

/// Waits for a container, its output having gone to `out`.
fn end(running: &mut Running, out: &Path) -> String {
    assert_eq!(running.end(), 0, "{:?}", fs::read_to_string(out));
    fs::read_to_string(out).expect("it was written")
}

#[test]
fn a_client_outside_finds_a_server_inside() {
    let before = Census::take();
    {
        let outside = Outside::new();
        let script = "my $l; socket($l, PF_UNIX, SOCK_STREAM, 0); bind($l, sockaddr_un('/shared/socket')) or die $!; listen($l, 5); \
             for (1 .. 3) { accept(my $c, $l); my $n = 0; while (sysread $c, my $b, 1 << 16) { $n += length $b } print $c \"got $n\\n\"; \
             $c->flush; close $c } print \"served\\n\"; close $l; select undef, undef, undef, 0.1 until -e '/shared/enough'";
        let args = perl(&format!("use IO::Handle; {script}"));
        let mut bundle = Bundle::new(Image::Debian, &as_strs(&args));
        outside.bound(&mut bundle, "", "/shared");
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1001}));
        let out = outside.path("out");
        let mut running = Running::new(bundle, File::create(&out).expect("a file").into(), Stdio::inherit());
        let path = outside.path("socket");
        let connect = || {
            (0..600).find_map(|_| {
                thread::sleep(Duration::from_millis(50));
                UnixStream::connect(&path).ok()
            })
        };
        for bytes in [5, 0, 1 << 20] {
            let mut client = connect().expect("somebody listens");
            let peer = getsockopt(&client, PeerCredentials).expect("a peer");
            assert_eq!((peer.uid(), peer.gid(), peer.pid()), (1000, 1001, running.pid));
            client.write_all(&vec![b'x'; bytes]).expect("it listens");
            client.shutdown(Shutdown::Write).expect("it is connected");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("an answer");
            assert_eq!(answer, format!("got {bytes}\n"));
        }
        // The server has closed its socket: one client may find that out, and then nobody listens.
        let refused = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(100));
            UnixStream::connect(&path).is_err()
        });
        assert!(refused, "somebody listens for a server that is gone");
        fs::write(outside.path("enough"), "").expect("a file");
        assert_eq!(end(&mut running, &out), "served\n");
        // As after runc: the name is still there, and nobody behind it.
        assert_eq!(UnixStream::connect(&path).expect_err("nobody").raw_os_error(), Some(libc::ECONNREFUSED));
    }
    before.assert_unchanged();
}

#[test]
fn two_containers_meet_at_a_socket_on_a_shared_volume() {
    let outside = Outside::new();
    let script = "my $l; socket($l, PF_UNIX, SOCK_STREAM, 0); bind($l, sockaddr_un('/shared/socket')) or die $!; listen($l, 5); \
         accept(my $c, $l); my $x = <$c>; syswrite $c, \"you said $x\"; close $c";
    let mut bundle = Bundle::new(Image::Debian, &as_strs(&perl(script)));
    outside.bound(&mut bundle, "", "/shared");
    let mut server = Running::new(bundle, Stdio::null(), Stdio::inherit());
    let script = "select undef, undef, undef, 0.1 until -e '/shared/socket'; my $s = at('/shared/socket'); syswrite $s, \"hello\\n\"; print <$s>";
    let mut bundle = Bundle::new(Image::Debian, &as_strs(&perl(script)));
    outside.bound(&mut bundle, "", "/shared");
    let path = bundle.write().to_owned();
    let output = Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()]);
    assert_eq!(output.ok().stdout, "you said hello\n");
    assert_eq!(server.end(), 0);
}

#[test]
fn datagrams_reach_a_log_outside_as_under_runc() {
    let outside = Outside::new();
    let path = outside.path("log");
    let receive = |runtime: Runtime| {
        let log = UnixDatagram::bind(&path).expect("a socket");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("it is ours");
        log.set_read_timeout(Some(Duration::from_secs(10))).expect("it is ours");
        let script = "my $s = at('/dev/log', SOCK_DGRAM); send($s, 'x' x $_, 0) for 1 .. 40; send($s, \"<14>last\", 0) or print \"$!\\n\"; \
             at('/dev/log', SOCK_STREAM)";
        let output = thread::scope(|scope| {
            let running = scope.spawn(|| {
                run(runtime, Image::Debian, &as_strs(&perl(script)), |bundle| {
                    outside.bound(bundle, "log", "/dev/log");
                })
            });
            let mut seen = Vec::new();
            let mut bytes = [0; 1000];
            while let Ok(length) = log.recv(&mut bytes) {
                seen.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
                if seen.last().is_some_and(|last| last == "<14>last") {
                    break;
                }
            }
            (running.join().expect("it ends"), seen)
        });
        fs::remove_file(&path).expect("it is there");
        output
    };
    let expected = receive(Runtime::Runc);
    assert_eq!(expected.1.len(), 41);
    assert_eq!(receive(Runtime::Husk), expected);
}

#[test]
fn a_fifo_connects_inside_and_outside_both_ways() {
    let outside = Outside::new();
    let path = outside.path("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
    let run_with = |runtime: Runtime| -> Output {
        thread::scope(|scope| {
            // Both wait in open for who comes.
            let pair = scope.spawn(|| {
                fs::write(&path, "from outside\n").expect("a reader");
                fs::read_to_string(&path).expect("a writer")
            });
            let script = "cat /run/fifo; sleep 1; (echo from; echo inside) > /run/fifo; sleep 1";
            let mut output = run(runtime, Image::Busybox, &["sh", "-c", script], |bundle| {
                outside.bound(bundle, "fifo", "/run/fifo");
            });
            output.stdout += &pair.join().expect("it ends");
            output
        })
    };
    let expected = run_with(Runtime::Runc).ok();
    assert_eq!(expected.stdout, "from outside\nfrom\ninside\n");
    assert_eq!(run_with(Runtime::Husk), expected);
}

#[test]
fn a_fifos_writer_waits_for_a_reader_and_loses_it() {
    let outside = Outside::new();
    let path = outside.path("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
    let bundle = |script: &str| {
        let mut bundle = Bundle::new(Image::Busybox, &["sh", "-c", script]);
        outside.bound(&mut bundle, "fifo", "/run/fifo");
        outside.bound(&mut bundle, "", "/shared");
        bundle
    };
    let out = outside.path("out");
    let script = "touch /shared/ready; { touch /shared/open; yes; } > /run/fifo; echo $?";
    let mut running =
        Running::new(bundle(script), File::create(&out).expect("a file").into(), Stdio::inherit());
    let there = |name: &str, most: u64| {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(most) {
            if outside.path(name).exists() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    };
    assert!(there("ready", 60));
    assert!(!there("open", 2), "it was opened without a reader");
    let mut reader = OpenOptions::new().read(true).open(&path).expect("a writer");
    let mut bytes = [0; 10_000];
    reader.read_exact(&mut bytes).expect("it writes");
    assert!(bytes.starts_with(b"y\ny\n") && there("open", 10));
    drop(reader);
    // SIGPIPE.
    assert_eq!(end(&mut running, &out), "141\n");
    // A writer outside that does not wait is told that nobody reads.
    let refused = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    assert_eq!(refused.expect_err("no reader").raw_os_error(), Some(libc::ENXIO));
}
