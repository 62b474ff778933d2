//! What a column of a table of processes shows. Names, headers and forms are those of procps.

use husk_protocol::GuestProcess;
use std::time::{Duration, SystemTime};

/// One column.
#[derive(Debug)]
pub struct Column {
    /// Its names in lists.
    names: &'static [&'static str],
    /// Its usual header.
    pub header: &'static str,
    /// Its least width.
    pub width: usize,
    /// Whether it keeps to the right.
    pub right: bool,
    /// What it says of a process. Everything in it was said by the guest.
    pub shown: fn(&GuestProcess, &Moment) -> String,
}

/// What a process is seen against.
#[derive(Debug)]
pub struct Moment {
    /// The time.
    pub now: SystemTime,
    /// The machine's memory, in bytes.
    pub memory: u64,
}

/// Ticks of processor time in a second, as the agent counts.
const TICKS: u64 = 100;

const fn left(
    names: &'static [&'static str],
    header: &'static str,
    width: usize,
    shown: fn(&GuestProcess, &Moment) -> String,
) -> Column {
    Column { names, header, width, right: false, shown }
}

const fn right(
    names: &'static [&'static str],
    header: &'static str,
    width: usize,
    shown: fn(&GuestProcess, &Moment) -> String,
) -> Column {
    Column { names, header, width, right: true, shown }
}

/// All columns. Users are numbers: names are the container's to give.
static COLUMNS: [Column; 24] = [
    right(&["pid"], "PID", 7, |process, _| process.pid.to_string()),
    right(&["ppid"], "PPID", 7, |process, _| process.parent.to_string()),
    left(&["uid"], "UID", 8, |process, _| process.uid.to_string()),
    left(&["user", "euser", "ruser", "uname"], "USER", 8, |process, _| process.uid.to_string()),
    right(&["euid", "ruid"], "EUID", 5, |process, _| process.uid.to_string()),
    right(&["c"], "C", 2, |process, moment| (permille(process, moment) / 10).min(99).to_string()),
    right(&["pcpu", "%cpu"], "%CPU", 4, |process, moment| tenths(permille(process, moment))),
    right(&["pmem", "%mem"], "%MEM", 4, |process, moment| {
        let permille = u128::from(process.resident_memory).saturating_mul(1000);
        tenths(clamped(permille.checked_div(u128::from(moment.memory))))
    }),
    right(&["vsz", "vsize"], "VSZ", 6, |process, _| (process.virtual_memory >> 10).to_string()),
    right(&["rss", "rssize", "rsz"], "RSS", 5, |process, _| (process.resident_memory >> 10).to_string()),
    right(&["sz"], "SZ", 5, |process, _| (process.virtual_memory >> 12).to_string()),
    left(&["tt", "tty", "tname"], "TTY", 8, |process, _| terminal(process.terminal)),
    left(&["s", "state"], "S", 1, |process, _| process.state.to_string()),
    left(&["stat"], "STAT", 4, |process, _| {
        let nice = if process.nice < 0 {
            "<"
        } else if process.nice > 0 {
            "N"
        } else {
            ""
        };
        format!("{}{nice}{}", process.state, if process.threads > 1 { "l" } else { "" })
    }),
    right(&["stime"], "STIME", 5, |process, moment| started(process.started, moment.now)),
    left(&["start_time", "start"], "START", 5, |process, moment| started(process.started, moment.now)),
    right(&["etime"], "ELAPSED", 11, |process, moment| {
        let seconds = elapsed(process, moment).as_secs();
        let (days, hours) = (seconds / 86400, seconds / 3600 % 24);
        let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
        match (days, hours) {
            (0, 0) => rest,
            (0, hours) => format!("{hours:02}:{rest}"),
            (days, hours) => format!("{days}-{hours:02}:{rest}"),
        }
    }),
    right(&["etimes"], "ELAPSED", 7, |process, moment| elapsed(process, moment).as_secs().to_string()),
    right(&["time", "cputime"], "TIME", 8, |process, _| {
        let seconds = process.ticks / TICKS;
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }),
    right(&["bsdtime"], "TIME", 6, |process, _| {
        let seconds = process.ticks / TICKS;
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }),
    left(&["ucmd", "comm", "ucomm"], "CMD", 15, |process, _| shown(&process.name)),
    left(&["cmd"], "CMD", 27, |process, _| shown(&process.command)),
    left(&["args", "command"], "COMMAND", 27, |process, _| shown(&process.command)),
    right(&["ni", "nice"], "NI", 3, |process, _| process.nice.to_string()),
];

/// What processes inside call themselves.
fn shown(words: &str) -> String {
    crate::error::harmless(words, usize::MAX)
}

/// The column of that name.
pub fn known(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.names.contains(&name))
}

/// All names, for a person who has used another.
pub fn names() -> String {
    COLUMNS.iter().flat_map(|column| column.names).copied().collect::<Vec<_>>().join(" ")
}

impl Column {
    /// Whether it tells one process from another.
    pub fn is_pid(&self) -> bool {
        self.names == ["pid"]
    }
}

impl PartialEq for Column {
    fn eq(&self, other: &Column) -> bool {
        self.names == other.names
    }
}

fn tenths(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// How long it has run. A start that is yet to come is now.
fn elapsed(process: &GuestProcess, moment: &Moment) -> Duration {
    let then = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(process.started));
    then.and_then(|then| moment.now.duration_since(then).ok()).unwrap_or_default()
}

/// Its share of a processor since its start, in thousandths.
fn permille(process: &GuestProcess, moment: &Moment) -> u64 {
    let used = u128::from(process.ticks).saturating_mul((1_000_000 / TICKS).into());
    clamped(used.checked_div(elapsed(process, moment).as_millis()))
}

/// 0 where there was nothing to divide by.
fn clamped(number: Option<u128>) -> u64 {
    number.map_or(0, |number| u64::try_from(number).unwrap_or(u64::MAX))
}

/// The hour of the day (UTC) within a day, the date after that.
fn started(nanoseconds: u64, now: SystemTime) -> String {
    // The guest says it, and any number of it is in the range of the clock.
    let Some(then) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds)) else {
        return "?".into();
    };
    let text = humantime::format_rfc3339_seconds(then).to_string();
    let recent = now.duration_since(then).is_ok_and(|age| age < Duration::from_secs(24 * 3600));
    let part = |range| text.get(range).unwrap_or("?").to_owned();
    if recent { part(11..16) } else { part(5..10) }
}

/// /proc/PID/stat's number of a terminal: pseudo-terminals have major numbers from 136.
fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match (number, major) {
        (0, _) => "?".into(),
        (_, 136..=143) => format!("pts/{}", (major & 7) << 8 | minor),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn process() -> GuestProcess {
        GuestProcess {
            pid: 7,
            parent: 1,
            uid: 0,
            key: None,
            ticks: 372_500,
            started: 1_700_000_000_000_000_000 - 3 * 3600 * 1_000_000_000,
            terminal: 136 << 8 | 3,
            state: 'S',
            nice: -1,
            threads: 2,
            virtual_memory: 8 << 20,
            resident_memory: 4 << 20,
            name: "sleep".into(),
            command: "sleep 10".into(),
        }
    }

    pub fn moment() -> Moment {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 - 3 * 3600 + 9000);
        Moment { now, memory: 64 << 20 }
    }

    fn shown(name: &str, moment: &Moment) -> String {
        (known(name).unwrap().shown)(&process(), moment)
    }

    #[test]
    fn times_have_the_forms_of_ps() {
        let mut moment = moment();
        assert_eq!((shown("etime", &moment), shown("etimes", &moment)), ("02:30:00".into(), "9000".into()));
        moment.now += Duration::from_secs(7 * 24 * 3600);
        assert_eq!((shown("etime", &moment), shown("stime", &moment)), ("7-02:30:00".into(), "11-14".into()));
    }

    #[test]
    fn a_guest_that_lies_about_everything_is_shown_all_the_same() {
        let mut lie = process();
        (lie.ticks, lie.started, lie.resident_memory) = (u64::MAX, u64::MAX, u64::MAX);
        (lie.terminal, lie.nice, lie.threads) = (u32::MAX, i32::MIN, 0);
        for column in &COLUMNS {
            for memory in [0, u64::MAX] {
                assert!(!(column.shown)(&lie, &Moment { memory, ..moment() }).is_empty(), "{column:?}");
            }
        }
    }
}
