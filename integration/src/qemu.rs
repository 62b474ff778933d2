//! QEMU's microvm with husk's kernel, memory and vcpu: what husk's start, its network and its files are compared with.

use crate::{bundle::Image, network::Bridge, traffic::PORT};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A guest that serves traffic ([`crate::traffic::serve`]) at an address of the bridge. Ended on drop.
pub struct Qemu {
    child: Child,
    directory: PathBuf,
}

impl Qemu {
    /// Starts it as a member of the bridge, and waits until it answers. `vhost`: the host's kernel moves its frames,
    /// instead of QEMU.
    pub fn start(kernel: &str, bridge: &mut Bridge, member: u32, vhost: bool) -> Qemu {
        let directory = PathBuf::from(format!("/var/tmp/husk-it/{}-qemu-{member}", std::process::id()));
        let address = bridge.ipv4(member);
        let lines = format!(
            "/bin/busybox mknod /dev/null c 1 3
            /bin/busybox ip link set lo up
            /bin/busybox ip addr add {address}/24 dev eth0
            /bin/busybox ip link set eth0 up
            exec /bench peer serve </dev/null >/dev/null 2>&1
"
        );
        let initrd = initrd(&directory, &lines);
        let tap = bridge.tap(member);
        let vhost = if vhost { "on" } else { "off" };
        let child = microvm(kernel, &initrd, Size::USUAL, "isa-serial=off", "")
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-netdev", &format!("tap,id=n,ifname={tap},script=no,downscript=no,vhost={vhost}")])
            .args(["-device", "virtio-net-device,netdev=n"])
            .stdout(Stdio::null())
            .spawn()
            .expect("QEMU is there");
        let qemu = Qemu { child, directory };
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((bridge.ipv4(member), PORT)).is_err() {
            assert!(Instant::now() < until, "the guest of QEMU does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        qemu
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// How large a guest is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Its memory.
    pub memory_mib: u32,
    /// Its vcpus.
    pub vcpus: u32,
}

impl Size {
    /// As husk's without a limit.
    pub const USUAL: Size = Size { memory_mib: 512, vcpus: 1 };
}

/// How long QEMU takes until PID 1 of the same initial RAM file system says its first word on the console.
pub fn to_first_line(kernel: &str, initrd: &str, size: Size) -> Duration {
    let started = Instant::now();
    let mut child =
        microvm(kernel, Path::new(initrd), size, "isa-serial=on", "earlyprintk=serial,ttyS0,115200,keep")
            .args(["-serial", "stdio"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("QEMU is there");
    let lines = BufReader::new(child.stdout.take().expect("piped"));
    let seen = lines.lines().map_while(Result::ok).any(|line| line.contains("husk-agent"));
    let taken = started.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    assert!(seen, "QEMU ended before the agent spoke");
    taken
}

pub(crate) fn microvm(kernel: &str, initrd: &Path, size: Size, options: &str, words: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", &format!("microvm,acpi=off,pit=on,pic=on,rtc=off,{options},auto-kernel-cmdline=on")])
        .args("-accel kvm -cpu host -nodefaults -no-user-config -nographic -no-reboot".split(' '))
        .args(["-m", &size.memory_mib.to_string(), "-smp", &size.vcpus.to_string()])
        .args(["-append", &format!("quiet {words} panic=-1 reboot=t"), "-kernel", kernel, "-initrd"])
        .arg(initrd)
        .stdin(Stdio::null());
    command
}

/// busybox, this program, and what PID 1 does.
pub(crate) fn initrd(directory: &Path, lines: &str) -> PathBuf {
    let root = directory.join("root");
    for name in ["bin", "dev"] {
        fs::create_dir_all(root.join(name)).expect("it can be made");
    }
    let this = std::env::current_exe().expect("it was started from a file");
    fs::copy(this, root.join("bench")).expect("it can be copied");
    let busybox = Image::Busybox.directory().join("bin/busybox");
    fs::copy(busybox, root.join("bin/busybox")).expect("it can be copied");
    let init = root.join("init");
    fs::write(&init, format!("#!/bin/busybox sh\n{lines}")).expect("it can be written");
    fs::set_permissions(&init, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let packed = directory.join("initrd");
    let pack = format!("cd {} && find . | busybox cpio -o -H newc >{}", root.display(), packed.display());
    assert!(Command::new("sh").args(["-c", &pack]).status().expect("there is a shell").success());
    packed
}
