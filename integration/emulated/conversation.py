"""One command's conversation with an emulated machine, over one of its ports. The other end is server.py, which
describes the protocol."""

import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time

PORTS = 8  # commands that can run at the same time; further ones wait for their turn
GRACE = 3  # seconds between passing a signal to a command and killing all that it started
MAGIC = b"\x00\xffhusk\xfemachine\x00\x01"  # as in server.py
TIMED_OUT = 124


class Failure(Exception):
    """The machine cannot be used: one line for the user."""


class Interrupted(BaseException):
    """A signal came while the command's output could not be written."""


class Conversation:
    """One port, from the greeting to the command's status. Closing it early kills the command."""

    def __init__(self, machine, limit):
        self.machine = machine
        self.inbox = b""
        self.signal = None  # the signal that ends this run, SIGALRM for the time limit
        self.writing = False
        self.take_port()
        self.greet(limit)

    def take_port(self):
        """A port serves one at a time: its lock is held by whoever talks on it."""
        while True:
            for port in range(PORTS):
                lock = open(self.machine.path("port%d.lock" % port), "w")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    continue
                self.lock = lock
                self.socket = socket.socket(socket.AF_UNIX)
                return self.connect(self.machine.path("port%d" % port))
            time.sleep(0.05)

    def connect(self, path):
        while True:
            try:
                return self.socket.connect(path)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.ECONNREFUSED):
                    raise
            if not self.machine.alive():
                raise self.machine.died("is dead")
            time.sleep(0.01)  # QEMU has just been started

    def greet(self, limit):
        """Sent before the server is there: QEMU keeps it until the port is opened inside."""
        greeting = MAGIC + os.urandom(16)
        self.socket.sendall(greeting)
        deadline = time.monotonic() + limit
        while greeting not in self.inbox:
            ready, _, _ = select.select([self.socket], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise self.machine.died("does not answer after %d s" % limit)
            self.receive()
        self.inbox = self.inbox.partition(greeting)[2]  # before it: the rest of a conversation that was broken off

    def receive(self):
        try:
            data = self.socket.recv(256 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            raise self.machine.died("died")
        self.inbox += data

    def send(self, kind, payload):
        try:
            self.socket.sendall(kind + struct.pack(">I", len(payload)) + payload)
        except ConnectionError:
            pass  # the next receive says so

    def start(self, argv, environment, cwd, size):
        request = {"argv": argv, "env": environment, "cwd": cwd, "tty": size}
        self.send(b"X", json.dumps(request).encode())

    def run(self, terminal=False):
        """Until the command has ended; its exit status."""
        woken, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        previous = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        watched = [self.socket, woken] + ([0] if terminal else [])
        kill_at = None
        try:
            while True:
                timeout = None if kill_at is None else max(0, kill_at - time.monotonic())
                ready, _, _ = select.select(watched, [], [], timeout)
                if kill_at is not None and time.monotonic() >= kill_at:
                    self.send(b"K", b"")
                    kill_at = time.monotonic() + GRACE
                if woken in ready and os.read(woken, 512) and self.signal and kill_at is None:
                    number = signal.SIGTERM if self.signal == signal.SIGALRM else self.signal
                    self.send(b"S", b"%d" % number)
                    kill_at = time.monotonic() + GRACE
                if terminal and woken in ready:
                    self.send(b"W", json.dumps(terminal_size()).encode())
                if 0 in ready:
                    typed = os.read(0, 4096)
                    if typed:
                        self.send(b"I", typed)
                    else:
                        watched.remove(0)
                        self.send(b"I", b"\x04")
                if self.socket in ready:
                    self.receive()
                    result = self.take()
                    if result is not None:
                        return self.exit_status(result)
        except Interrupted:
            return self.exit_status({"status": self.signal})
        finally:
            signal.set_wakeup_fd(previous)
            os.close(woken)
            os.close(wakeup)
            self.socket.close()
            self.lock.close()

    def take(self):
        """Pass on what has come in whole frames; the result, when it is among them."""
        start = 0
        while len(self.inbox) - start >= 5:
            kind = self.inbox[start : start + 1]
            (length,) = struct.unpack_from(">I", self.inbox, start + 1)
            if len(self.inbox) - start < 5 + length:
                break
            payload = memoryview(self.inbox)[start + 5 : start + 5 + length]
            start += 5 + length
            if kind == b"R":
                return json.loads(bytes(payload))
            self.write(1 if kind == b"O" else 2, payload)
        self.inbox = self.inbox[start:]
        return None

    def write(self, fd, data):
        """Blocks while the reader is slow, which in the end stops the command; a signal must still get through."""
        self.writing = True
        while data and not self.signal:
            data = data[os.write(fd, data) :]
        self.writing = False
        while data:  # being ended: what is left goes out as long as nobody waits for it
            data = data[os.write(fd, data) :]

    def on_signal(self, number, _frame):
        repeated = self.signal is not None
        self.signal = number
        if self.writing or repeated:
            raise Interrupted

    def exit_status(self, result):
        if self.signal == signal.SIGALRM:
            say("time limit reached")
            return TIMED_OUT
        if "error" in result:
            raise Failure("cannot start the command: " + result["error"])
        status = result["status"]
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def terminal_size():
    size = os.get_terminal_size(0)
    return [size.lines, size.columns]


def say(line):
    print("machine: " + line, file=sys.stderr, flush=True)
