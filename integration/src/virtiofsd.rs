//! A guest of QEMU's whose files virtiofsd serves: what husk's file server is compared with.

use crate::{
    outside::Outside,
    qemu::{Size, initrd, microvm},
    runtime::wait,
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Boots a guest with `root` as its root filesystem and `volume` on `/volume` in it, runs a shell's command there, and waits for its
/// end. The guest's kernel has no driver for a serial port: the command leaves what it has to say in a file.
#[track_caller]
pub fn run(kernel: &str, root: &Path, volume: &Path, command: &str) {
    let directory = Outside::new("virtiofsd");
    let shares = [Daemon::start(&directory.0, "root", root), Daemon::start(&directory.0, "volume", volume)];
    let busybox = "/bin/busybox";
    // PID 1 ends, the kernel panics, and with it ends the machine.
    let lines = format!(
        "{busybox} mkdir -p /new
        {busybox} mount -t virtiofs root /new
        {busybox} mount -t virtiofs volume /new/volume
        {busybox} mount -t devtmpfs devtmpfs /new/dev
        {busybox} mkdir -p /new/dev/shm
        {busybox} mount -t tmpfs tmpfs /new/dev/shm
        {busybox} mount -t proc proc /new/proc
        export PATH=/usr/bin:/bin HOME=/root
        {busybox} chroot /new /bin/sh -ec '{command}' </new/dev/null >/new/dev/null 2>/new/errors
"
    );
    let initrd = initrd(&directory.0, &lines);
    let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", Size::USUAL.memory_mib);
    let mut qemu = microvm(kernel, &initrd, Size::USUAL, "isa-serial=off,memory-backend=memory", "");
    qemu.args(["-object", &memory, "-global", "virtio-mmio.force-legacy=false"]);
    for share in &shares {
        let (name, socket) = (share.name, share.socket.display());
        qemu.args(["-chardev", &format!("socket,id={name},path={socket}")]);
        qemu.args(["-device", &format!("vhost-user-fs-device,chardev={name},tag={name}")]);
    }
    let mut qemu = qemu.stdout(Stdio::null()).spawn().expect("QEMU is there");
    let ended = wait(&mut qemu, Duration::from_secs(1800));
    let _ = qemu.kill();
    let _ = qemu.wait();
    let errors = std::fs::read_to_string(root.join("errors")).unwrap_or_default();
    assert!(ended.is_some() && errors.is_empty(), "{ended:?}: {errors}");
}

/// It serves one device. Ended on drop.
struct Daemon {
    name: &'static str,
    socket: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts it, with what it does by itself; waits until it listens.
    fn start(directory: &Path, name: &'static str, shared: &Path) -> Daemon {
        let socket = directory.join(name).with_extension("socket");
        let program = ["/usr/libexec/virtiofsd", "virtiofsd"];
        let program = program.into_iter().find(|path| Path::new(path).exists()).unwrap_or(program[1]);
        let child = Command::new(program)
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(shared)
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("virtiofsd is there");
        let until = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            assert!(Instant::now() < until, "virtiofsd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Daemon { name, socket, child }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
