//! The guest kernel's last words: just enough of a serial port that Linux's `earlyprintk=serial,ttyS0,...,keep` can
//! write to it, and a ring of fixed size that keeps the end of what was written.
//!
//! It works from the kernel's first line to a panic, needs no queue and no interrupt, and reads nothing: a kernel that
//! never reaches its agent leaves its reason here, for the host's log.
//!
//! | The guest can | and then |
//! |---|---|
//! | write for ever | the oldest bytes are forgotten; memory use does not grow |
//! | write control characters, escape sequences, half a character | [`KernelLog::tail`] shows each as a replacement character |
//! | use the other registers | they read as an idle port, or 0; writes do nothing |

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The first I/O port of the serial port.
pub const FIRST_PORT: u16 = 0x3f8;

/// How many ports it has.
pub const PORTS: u16 = 8;

/// Most bytes that are kept.
pub const CAPACITY: usize = 64 * 1024;

/// The serial port. The machine hands it the guest's accesses to its I/O ports, from any vcpu.
pub struct Console {
    log: Arc<KernelLog>,
    /// Whether the first two registers are the divisor of the line's speed at the moment, and what is written there is
    /// not text.
    divisor: AtomicBool,
}

impl Console {
    /// A port that writes to `log`.
    pub fn new(log: Arc<KernelLog>) -> Console {
        Console { log, divisor: AtomicBool::new(false) }
    }

    /// The guest reads from port `FIRST_PORT + offset`.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(if offset == LINE_STATUS { TRANSMITTER_EMPTY } else { 0 });
    }

    /// The guest writes to port `FIRST_PORT + offset`.
    pub fn write(&self, offset: u16, data: &[u8]) {
        match (offset, data.last()) {
            // A string write (`rep outsb`) arrives as several bytes for the one port.
            (TRANSMIT, _) if !self.divisor.load(Ordering::Relaxed) => self.log.append(data),
            (LINE_CONTROL, Some(value)) => self.divisor.store(value & DIVISOR_LATCH != 0, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// The end of what the guest's kernel has said.
#[derive(Default)]
pub struct KernelLog {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    bytes: VecDeque<u8>,
    total: u64,
    waiting: usize,
}

impl KernelLog {
    /// Nothing said yet.
    pub fn new() -> Arc<KernelLog> {
        Arc::new(KernelLog::default())
    }

    /// How many bytes were ever said.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// The last `lines` lines, without a newline at the end. Safe to print: lossy UTF-8, and no control character but
    /// newlines and tabs.
    pub fn tail(&self, lines: usize) -> String {
        let bytes: Vec<u8> = self.lock().bytes.iter().copied().collect();
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|c| *c != '\r')
            .map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER })
            .collect();
        let text = text.trim_end_matches('\n');
        let mut last: Vec<&str> = text.rsplit('\n').take(lines).collect();
        last.reverse();
        last.join("\n")
    }

    /// The lines that tell why it ended, as one: those of the first fault if it panicked, or else its last ones.
    pub fn last_words(&self) -> String {
        let lines = self.tail(LINES_SEARCHED);
        match telling(&lines).as_slice() {
            [] => "its kernel has not said a word".to_owned(),
            lines => format!("its kernel said last: {}", lines.join(" | ")),
        }
    }

    /// Waits until more than `seen` bytes were said, or the deadline; how many were said.
    pub fn wait(&self, seen: u64, deadline: Instant) -> u64 {
        let mut said = self.lock();
        while said.total <= seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            said.waiting = said.waiting.saturating_add(1);
            said = self.more.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
            said.waiting = said.waiting.saturating_sub(1);
        }
        said.total
    }

    fn append(&self, data: &[u8]) {
        let mut said = self.lock();
        for byte in data {
            if said.bytes.len() >= CAPACITY {
                said.bytes.pop_front();
            }
            said.bytes.push_back(*byte);
        }
        said.total = said.total.saturating_add(u64::try_from(data.len()).unwrap_or(0));
        // The kernel writes byte by byte; waking nobody costs nothing this way.
        if said.waiting > 0 {
            self.more.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a fault says of its cause and its place comes first of many lines, and its registers and a trace follow; what
/// the panic says that comes of it is less than that.
fn telling(lines: &str) -> Vec<&str> {
    let lines: Vec<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    let end = lines.iter().rposition(|line| line.contains("Kernel panic"));
    let end = end.map_or(lines.len(), |at| at.saturating_add(1));
    let lines = lines.get(..end).unwrap_or_default();
    let Some(cause) = lines.iter().position(|line| CAUSES.iter().any(|cause| line.contains(cause))) else {
        return lines.get(end.saturating_sub(LINES_SHOWN)..).unwrap_or_default().to_vec();
    };
    let (panic, fault) = lines.split_last().unzip();
    let fault = fault.and_then(|fault: &[&str]| fault.get(cause..)).unwrap_or_default();
    let mut shown: Vec<&str> = fault.iter().copied().filter(|line| is_place(line)).collect();
    // Of a jump to nowhere the kernel can only guess where it came from.
    if !shown.iter().any(|line| line.contains("+0x")) {
        shown.extend(fault.iter().copied().filter(|line| line.contains("+0x")));
    }
    shown.truncate(FAULT_SHOWN);
    shown.extend(panic);
    shown
}

/// Whether a line of a fault says why or where, and not what the registers held.
fn is_place(line: &str) -> bool {
    // Guesses of a trace have a question mark.
    CAUSES.iter().any(|cause| line.contains(cause)) || (line.contains("+0x") && !line.contains(" ? "))
}

/// What Linux says first of a fault of its own (arch/x86/mm/fault.c, arch/x86/kernel/{dumpstack,traps}.c).
const CAUSES: [&str; 8] = [
    "BUG:",
    "#PF:",
    "Oops:",
    "kernel BUG at",
    "general protection fault",
    "double fault",
    "RIP: ",
    "Workqueue: ",
];
/// How much of the end of the log is searched, and shown if no fault is found.
const LINES_SEARCHED: usize = 200;
const LINES_SHOWN: usize = 5;
/// Lines of a fault.
const FAULT_SHOWN: usize = 12;

/// What a log may hold.
fn is_printable(c: char) -> bool {
    c == '\n' || c == '\t' || crate::error::is_printable(c)
}

// Registers of a 16550 (offsets from its first port) and the values that matter.
const TRANSMIT: u16 = 0;
const LINE_CONTROL: u16 = 3;
const LINE_STATUS: u16 = 5;
/// In line control: the first two registers are the divisor.
const DIVISOR_LATCH: u8 = 0x80;
/// Transmitter empty, holding register empty: ready for the next byte.
const TRANSMITTER_EMPTY: u8 = 0x60;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn port() -> (Console, Arc<KernelLog>) {
        let log = KernelLog::new();
        (Console::new(log.clone()), log)
    }

    fn say(console: &Console, text: &[u8]) {
        for byte in text {
            let mut status = [0];
            console.read(5, &mut status);
            assert_eq!(status, [0x60], "the kernel waits for this before each byte");
            console.write(0, &[*byte]);
        }
    }

    #[test]
    fn a_divisor_is_not_text() {
        let log = KernelLog::new();
        let console = Console::new(Arc::clone(&log));
        console.write(LINE_CONTROL, &[DIVISOR_LATCH | 3]);
        console.write(TRANSMIT, &[1]);
        console.write(LINE_CONTROL, &[3]);
        console.write(TRANSMIT, b"Linux");
        assert_eq!(log.tail(1), "Linux");
    }

    #[test]
    fn the_last_lines_are_shown_without_carriage_returns() {
        let (console, log) = port();
        say(&console, b"one\r\ntwo\r\nKernel panic - not syncing\r\n");
        assert_eq!(log.tail(2), "two\nKernel panic - not syncing");
        assert_eq!(log.tail(0), "");
        assert_eq!(log.tail(100), "one\ntwo\nKernel panic - not syncing");
    }

    #[test]
    fn a_panics_reason_is_shown_and_not_the_end_of_its_trace() {
        let trace = "a\nKernel panic - not syncing: no init found\nCall Trace:\n b\n c\n d\n e\n f";
        assert_eq!(telling(trace), ["a", "Kernel panic - not syncing: no init found"]);
        assert_eq!(telling("1\n2\n3\n4\n5\n6"), ["2", "3", "4", "5", "6"]);
        assert!(telling("").is_empty());
    }

    /// Seen with registers and a trace between them that filled what was shown.
    #[test]
    fn of_a_fault_its_cause_and_its_place_are_shown() {
        let fault = "Linux version\nBUG: unable to handle page fault for address: ffff888002000000\n\
            #PF: supervisor write access in kernel mode\nPGD 2e01067\nRIP: 0010:clear_page_erms+0x7/0x10\n\
            RAX: 0 RBX: 0\nCall Trace:\n <TASK>\n ? show_regs+0x1/0x2\n get_page+0x10/0x20\n </TASK>\n\
            CR2: ffff888002000000 CR3: 0000000001c18000\nKernel panic - not syncing: Attempted to kill the idle task!";
        let place = [
            "BUG: unable to handle page fault for address: ffff888002000000",
            "#PF: supervisor write access in kernel mode",
            "RIP: 0010:clear_page_erms+0x7/0x10",
            " get_page+0x10/0x20",
            "Kernel panic - not syncing: Attempted to kill the idle task!",
        ];
        assert_eq!(telling(fault), place);
        let nowhere = "BUG: kernel NULL pointer dereference, address: 0000000000000000\nOops: Oops: 0010 [#1] SMP NOPTI\n\
            CPU: 0 UID: 0 PID: 12\nWorkqueue: async async_run_entry_fn\nRIP: 0010:0x0\nCall Trace:\n ? unpack+0x1/0x2\nKernel panic - not syncing";
        let place = [
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "Oops: Oops: 0010 [#1] SMP NOPTI",
            "Workqueue: async async_run_entry_fn",
            "RIP: 0010:0x0",
            " ? unpack+0x1/0x2",
            "Kernel panic - not syncing",
        ];
        assert_eq!(telling(nowhere), place);
        let long = format!("BUG: one\n{}Kernel panic", "a+0x1/0x2\n".repeat(100));
        assert_eq!(telling(&long).len(), FAULT_SHOWN + 1);
    }

    #[test]
    fn writing_for_ever_keeps_the_end_alone() {
        let (console, log) = port();
        for line in 0..50_000 {
            console.write(0, format!("line {line}\n").as_bytes());
        }
        let all = log.tail(usize::MAX);
        assert!(all.len() <= CAPACITY);
        assert!(all.ends_with("line 49999"));
        assert!(log.total() > 500_000);
        assert!(log.lock().bytes.capacity() <= 2 * CAPACITY, "memory does not grow");
    }

    #[test]
    fn control_characters_and_broken_text_are_safe_to_print() {
        let (console, log) = port();
        say(&console, b"\x1b]0;owned\x07\xff\xfe\x9b31m\xe2\x80\xae\tok\x00");
        let shown = log.tail(1);
        assert!(shown.chars().all(|c| c == '\t' || !c.is_control()), "{shown:?}");
        assert!(!shown.contains('\u{202e}'), "text direction must not change");
        assert!(shown.ends_with("ok\u{fffd}"));
    }

    #[test]
    fn other_registers_are_inert() {
        let (console, log) = port();
        for offset in [1, 2, 3, 4, 5, 6, 7, 8, 100] {
            console.write(offset, b"x");
            let mut data = [0xaa; 3];
            console.read(offset, &mut data);
            assert_eq!(data, [if offset == 5 { 0x60 } else { 0 }; 3]);
        }
        assert_eq!(log.total(), 0);
    }

    #[test]
    fn a_waiter_is_woken_by_the_first_byte_and_gives_up_at_its_deadline() {
        let (console, log) = port();
        let soon = Instant::now() + Duration::from_millis(10);
        assert_eq!(log.wait(0, soon), 0);
        let waiter = std::thread::spawn(move || log.wait(0, Instant::now() + Duration::from_secs(30)));
        std::thread::sleep(Duration::from_millis(10));
        console.write(0, b"x");
        assert_eq!(waiter.join().ok(), Some(1));
    }
}
