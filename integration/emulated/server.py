"""The command server: runs inside the emulated machine as PID 1, started by `init`.

Place: `machine run` on the host <-> one virtio-serial port <-> this server <-> the command's pipes or terminal.
Each port carries one session at a time; there are several ports, so several commands can run side by side.
One thread and one epoll: a port that is not read stops only its own command (its pipes fill up), nothing else.

A session:  host sends MAGIC + nonce (16 bytes) -> server answers the same -> frames both ways -> server sends 'R'.
The magic may come at any time and starts over: the last host process may have been killed in the middle of a frame.
A frame is a type (1 byte), a length (4 bytes, big-endian) and that many bytes:
  to the server    X  JSON: argv, env, cwd, tty ([rows, columns] or null)      once, first
                   S  signal number, in decimal                  I  bytes for the terminal
                   K  kill everything that the command started   W  JSON: [rows, columns]
  to the host      O  standard output (or the terminal)   E  standard error   R  JSON: wait status, or why there is none
When the host's end closes before 'R', all that the command started is killed (its cgroup). After 'R', what it left
running stays: a detached container must outlive the command that made it.

Not here: time limits, sharing directories, exit codes: see `machine`.
"""

import errno
import fcntl
import json
import os
import pty
import resource
import select
import signal
import struct
import sys
import termios
import time

MAGIC = b"\x00\xffhusk\xfemachine\x00\x01"
NONCE = 16
CHUNK = 64 * 1024  # read from a command at once; at most one chunk per session is in memory
MAX_FRAME = 1 << 20
WATCHDOG_LIMIT = 120  # seconds; emulation on a busy host may stand still for a while
WATCHDOG_INTERVAL = 10
WDIOC_SETTIMEOUT = 0xC0045706
CGROUP = "/sys/fs/cgroup/run"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LANG": "C.UTF-8",
}

epoll = select.epoll()
sources = {}  # file descriptor -> what to call with its events
sessions = {}  # pid -> session
serial = 0  # number of the last command
ended = False  # a command has ended since the last sweep


def frame(kind, payload):
    return kind + struct.pack(">I", len(payload)) + payload


def watch(fd, events, call):
    sources[fd] = call
    epoll.register(fd, events)


def unwatch(fd):
    del sources[fd]
    epoll.unregister(fd)


class Port:
    """One virtio-serial port: bytes in, bytes out, and the session it carries."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.inbox = b""
        self.outbox = b""
        self.greeted = False
        self.session = None
        # Edge-triggered: a port whose host end is closed reports HUP for ever, which would keep the loop spinning.
        watch(self.fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET, self.on_event)

    def on_event(self, events):
        if events & select.EPOLLHUP:
            self.hang_up()
        # Read even then: between two events the next host process may have connected already.
        while True:
            try:
                data = os.read(self.fd, CHUNK)
            except OSError as e:
                if e.errno != errno.EAGAIN:
                    self.hang_up()
                break
            if not data:
                break
            self.inbox += data
        self.parse()
        self.flush()

    def hang_up(self):
        """The host's end is gone, or started over."""
        self.outbox = b""
        self.greeted = False
        if self.session:
            self.session.abandon()
            self.session = None

    def parse(self):
        start = self.inbox.rfind(MAGIC)
        if start >= 0 and len(self.inbox) >= start + len(MAGIC) + NONCE:
            self.hang_up()
            end = start + len(MAGIC) + NONCE
            self.outbox = self.inbox[start:end]
            self.inbox = self.inbox[end:]
            self.greeted = True
        while self.greeted and len(self.inbox) >= 5:
            kind = self.inbox[:1]
            (length,) = struct.unpack(">I", self.inbox[1:5])
            if length > MAX_FRAME:
                self.hang_up()
            elif len(self.inbox) >= 5 + length:
                payload, self.inbox = self.inbox[5 : 5 + length], self.inbox[5 + length :]
                self.take(kind, payload)
            else:
                return
        if not self.greeted:
            self.inbox = self.inbox[-(len(MAGIC) + NONCE) :]

    def take(self, kind, payload):
        if kind == b"X" and not self.session:
            try:
                self.session = Session(self, json.loads(payload))
            except OSError as e:
                self.outbox += frame(b"R", json.dumps({"error": str(e)}).encode())
        elif self.session:
            self.session.take(kind, payload)

    def flush(self):
        while self.outbox:
            try:
                self.outbox = self.outbox[os.write(self.fd, self.outbox[:CHUNK]) :]
            except OSError as e:
                if e.errno != errno.EAGAIN:
                    self.outbox = b""
                break
        if self.session:
            self.session.pull()


class Session:
    """One command, from its start to its last byte of output and its status."""

    def __init__(self, port, request):
        global serial
        serial += 1
        self.port = port
        self.cgroup = "%s/%d" % (CGROUP, serial)
        self.outputs = {}  # fd -> frame type; empty when all is read
        self.paused = set()  # not watched because the port has not taken what was read last
        self.terminal = None
        self.status = None
        self.drain_until = None
        os.mkdir(self.cgroup)
        if request.get("tty"):
            self.start_on_terminal(request)
        else:
            self.start_on_pipes(request)
        sessions[self.pid] = self
        for fd in self.outputs:
            os.set_blocking(fd, False)
            watch(fd, select.EPOLLIN, lambda events, fd=fd: self.read(fd))

    def start_on_pipes(self, request):
        out, out_inner = os.pipe2(os.O_CLOEXEC)
        err, err_inner = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            become(request, self.cgroup, (null, out_inner, err_inner))
        os.close(out_inner)
        os.close(err_inner)
        self.outputs = {out: b"O", err: b"E"}

    def start_on_terminal(self, request):
        outer, inner = pty.openpty()
        set_size(outer, request["tty"])
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
            become(request, self.cgroup, (inner, inner, inner))
        os.close(inner)
        self.terminal = outer
        self.outputs = {outer: b"O"}

    def take(self, kind, payload):
        if kind == b"S":
            try:
                os.killpg(self.pid, int(payload))
            except ProcessLookupError:
                pass
        elif kind == b"K":
            kill_cgroup(self.cgroup)
        elif kind == b"W" and self.terminal is not None:
            set_size(self.terminal, json.loads(payload))
        elif kind == b"I" and self.terminal is not None:
            try:
                os.write(self.terminal, payload)
            except BlockingIOError:
                pass  # a terminal's line buffer is full: it drops what is typed, as terminals do

    def read(self, fd):
        """One chunk from the command to the port; the next only when the port has taken it."""
        if self.port.outbox:
            epoll.modify(fd, 0)
            self.paused.add(fd)
            return
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last user of the terminal is gone
            data = b""
        if data:
            self.port.outbox += frame(self.outputs[fd], data)
            self.port.flush()
        else:
            self.close(fd)
            self.finish()

    def pull(self):
        """The port has room again."""
        if not self.port.outbox:
            for fd in self.paused:
                epoll.modify(fd, select.EPOLLIN)
            self.paused.clear()

    def exited(self, status):
        self.status = status
        # What the command left running may hold its output open for ever: what it wrote itself is in the pipes by
        # now, so read those until they are empty.
        self.finish()

    def finish(self):
        if self.status is None:
            return
        for fd in list(self.outputs):
            if self.port.outbox:
                return  # come back from the event loop
            if not readable(fd):
                self.close(fd)
            else:
                return
        self.port.outbox += frame(b"R", json.dumps({"status": self.status}).encode())
        self.forget()
        self.port.session = None
        self.port.flush()

    def close(self, fd):
        self.paused.discard(fd)
        unwatch(fd)
        os.close(fd)
        del self.outputs[fd]

    def abandon(self):
        kill_cgroup(self.cgroup)
        self.forget()

    def forget(self):
        global ended
        ended = True
        for fd in list(self.outputs):
            self.close(fd)
        sessions.pop(self.pid, None)


def become(request, cgroup, standard):
    """In the child: turn into the command; a failure is a line on its standard error and 126 or 127, as in a shell."""
    try:
        with open(cgroup + "/cgroup.procs", "w") as f:
            f.write("0")
        for number, fd in enumerate(standard):
            os.dup2(fd, number)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.chdir(request["cwd"])
        except FileNotFoundError:
            os.chdir("/root")  # not shared: see `machine`
        environment = dict(ENVIRONMENT, **request["env"])
        os.execvpe(request["argv"][0], request["argv"], environment)
    except OSError as e:
        os.write(2, ("%s: %s\n" % (request["argv"][0], e.strerror)).encode())
        os._exit(127 if e.errno == errno.ENOENT else 126)
    finally:
        os._exit(126)


def readable(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))


def set_size(fd, size):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))


def kill_cgroup(path):
    try:
        with open(path + "/cgroup.kill", "w") as f:
            f.write("1")
    except OSError:
        pass


def sweep():
    """Take away the groups of commands of which nothing is left."""
    global ended
    ended = False
    running = {session.cgroup for session in sessions.values()}
    for name in os.listdir(CGROUP):
        path = CGROUP + "/" + name
        if path not in running and os.path.isdir(path):
            try:
                os.rmdir(path)
            except OSError:
                pass  # something still runs in it


def reap(signals, _events):
    os.read(signals, 4096)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        session = sessions.get(pid)
        if session:
            session.exited(status)


def idle_limit():
    """Seconds without a session after which the machine powers off: it must never be left over."""
    with open("/proc/cmdline") as f:
        return int(dict(word.partition("=")[::2] for word in f.read().split()).get("machine.idle", 1800))


def power_off():
    os.sync()
    os.execv("/usr/bin/busybox", ["busybox", "poweroff", "-f"])


def serve():
    # The hardware watchdog ends the machine when this loop no longer turns: a hung kernel is not left running.
    watchdog = None
    if os.path.exists("/dev/watchdog"):
        watchdog = os.open("/dev/watchdog", os.O_WRONLY | os.O_CLOEXEC)
        fcntl.ioctl(watchdog, WDIOC_SETTIMEOUT, struct.pack("i", WATCHDOG_LIMIT))
    # As systemd would: the kernel's own hard limit of 4096 files is too low for containerd and dockerd.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 524288))
    signals, wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: power_off())
    watch(signals, select.EPOLLIN, lambda events: reap(signals, events))
    names = sorted(name for name in os.listdir("/dev") if name.startswith("vport"))
    ports = [Port("/dev/" + name) for name in names]
    if not ports:
        print("server: no ports", file=sys.stderr)
        power_off()
    limit = idle_limit()
    busy = time.monotonic()
    while True:
        for fd, events in epoll.poll(WATCHDOG_INTERVAL):
            call = sources.get(fd)
            if call:
                call(events)
        for port in ports:
            if port.session and port.session.status is not None:
                port.session.finish()
        if watchdog is not None:
            os.write(watchdog, b"\n")
        now = time.monotonic()
        if any(port.greeted for port in ports):
            busy = now
        elif now - busy > limit:
            print("server: no command for %d s: power off" % limit, file=sys.stderr)
            power_off()
        if ended:
            sweep()


serve()
