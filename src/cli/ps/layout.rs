//! Which columns: from options of ps to a table.

use super::column::{Column, Moment, known};
use husk_protocol::GuestProcess;

/// The columns of a table, with their headers.
#[derive(Debug, PartialEq)]
pub struct Layout(Vec<(&'static Column, String)>);

/// `ps -ef`, which is also what runc does without options.
const FULL: &str = "uid,pid,ppid,c,stime,tname,time,cmd";
/// `ps aux`.
const USER: &str = "user,pid,pcpu,pmem,vsz,rss,tt,stat,start_time,bsdtime,args";
/// `ps -e`.
const SHORT: &str = "pid,tname,time,ucmd";
/// `ps ax`.
const SHORT_BSD: &str = "pid,tt,stat,bsdtime,args";
/// `ps -el`.
const LONG: &str = "s,uid,pid,ppid,c,ni,sz,tname,time,ucmd";

/// Reads options: groups of letters with a dash (`-ef`), without (`aux`), and `-o`, `-eo`, `o` with a list.
pub fn of(options: &[String]) -> Result<Layout, String> {
    if options.is_empty() {
        return columns(FULL);
    }
    let mut chosen: Option<Layout> = None;
    let mut listed = Vec::new();
    let mut bsd = false;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let letters = word.strip_prefix('-').unwrap_or(word);
        // procps takes the misspelt `-aux` for `aux`.
        let dashed = word.starts_with('-') && !(letters.starts_with("au") && letters.contains('x'));
        bsd |= !dashed;
        for (at, letter) in letters.char_indices() {
            match (letter, dashed) {
                ('e' | 'A', true) | ('a' | 'x', false) | ('w', _) => {}
                ('f', true) => chosen = Some(columns(FULL)?),
                ('l', true) => chosen = Some(columns(LONG)?),
                ('u', false) => chosen = Some(columns(USER)?),
                ('o', _) => {
                    let rest = letters.get(at.saturating_add(1)..).unwrap_or_default();
                    let list = if rest.is_empty() { words.next().map_or("", String::as_str) } else { rest };
                    listed.extend(columns(list)?.0);
                    break;
                }
                _ => return Err(refused(word)),
            }
        }
        if letters.is_empty() {
            return Err(refused(word));
        }
    }
    let layout = match (listed.is_empty(), chosen) {
        (false, _) => Layout(listed),
        (true, Some(layout)) => layout,
        (true, None) => columns(if bsd { SHORT_BSD } else { SHORT })?,
    };
    // runc finds the container's rows by it, and says so.
    if layout.0.iter().any(|(column, _)| column.is_pid()) {
        Ok(layout)
    } else {
        Err("couldn't find PID field in ps output".to_owned())
    }
}

fn refused(word: &str) -> String {
    format!(
        "ps option {word:?} is not supported by husk, whose ps looks into the guest: it knows -e, -A, -f, -l, -o LIST, a, x, u, w and o LIST"
    )
}

/// A list of columns, `pid,cmd=COMMAND`. As in ps, a header goes on to the end of the word.
fn columns(list: &str) -> Result<Layout, String> {
    let mut found = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', ' ', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let column = known(name).ok_or_else(|| {
            format!("ps: {name:?} is not a column that husk knows: {}", super::column::names())
        })?;
        match after.strip_prefix('=') {
            Some(header) => {
                found.push((column, header.to_owned()));
                rest = "";
            }
            None => {
                found.push((column, column.header.to_owned()));
                rest = after.trim_start_matches([',', ' ']);
            }
        }
    }
    if found.is_empty() { Err("ps: a list of columns is empty".to_owned()) } else { Ok(Layout(found)) }
}

impl Layout {
    /// The table, line by line. Each column is as wide as its widest entry, but for the last.
    pub fn table(&self, processes: &[GuestProcess], moment: &Moment) -> Vec<String> {
        let headers = self.0.iter().map(|(_, header)| header.clone()).collect();
        let rows = processes
            .iter()
            .map(|process| self.0.iter().map(|(column, _)| (column.shown)(process, moment)).collect());
        let lines: Vec<Vec<String>> = std::iter::once(headers).chain(rows).collect();
        let width = |at: usize| {
            let widest = lines.iter().filter_map(|line| line.get(at)).map(|text| text.chars().count()).max();
            widest.unwrap_or(0).max(self.0.get(at).map_or(0, |(column, _)| column.width))
        };
        let widths: Vec<usize> = (0..self.0.len()).map(width).collect();
        lines.iter().map(|line| self.line(line, &widths)).collect()
    }

    fn line(&self, texts: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (at, ((column, _), (text, &width))) in self.0.iter().zip(texts.iter().zip(widths)).enumerate() {
            if at > 0 {
                line.push(' ');
            }
            match (column.right, at.saturating_add(1) == self.0.len()) {
                (true, _) => line.push_str(&format!("{text:>width$}")),
                (false, false) => line.push_str(&format!("{text:<width$}")),
                (false, true) => line.push_str(text),
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::tests::{moment, process};
    use super::*;

    fn table(options: &str) -> Result<Vec<String>, String> {
        let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        Ok(of(&options)?.table(&[process()], &moment()))
    }

    #[test]
    fn the_usual_options_give_the_tables_of_ps() {
        for options in ["", "-ef", "-e -f", "-Af", "-efww"] {
            let lines = table(options).unwrap();
            assert_eq!(lines[0], "UID          PID    PPID  C STIME TTY          TIME CMD", "{options}");
            assert_eq!(lines[1], "0              7       1 41 19:13 pts/3    01:02:05 sleep 10", "{options}");
        }
        for options in ["aux", "-aux", "a u x", "auxww"] {
            let lines = table(options).unwrap();
            assert_eq!(
                lines[0], "USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND",
                "{options}"
            );
            assert_eq!(
                lines[1], "0              7 41.3  6.2   8192  4096 pts/3    S<l  19:13  62:05 sleep 10",
                "{options}"
            );
        }
        assert_eq!(
            table("-e").unwrap(),
            ["    PID TTY          TIME CMD", "      7 pts/3    01:02:05 sleep"]
        );
        assert_eq!(
            table("ax").unwrap(),
            ["    PID TTY      STAT   TIME COMMAND", "      7 pts/3    S<l   62:05 sleep 10"]
        );
    }

    #[test]
    fn a_list_of_columns_is_shown_as_given() {
        assert_eq!(table("-o pid,cmd").unwrap(), ["    PID CMD", "      7 sleep 10"]);
        assert_eq!(table("-eopid,comm=NAME OF").unwrap_err().split(' ').next(), Some("ps"));
        assert_eq!(table("-eo pid -o comm=NAME").unwrap(), ["    PID NAME", "      7 sleep"]);
        assert_eq!(table("axo pid,args").unwrap()[1], "      7 sleep 10");
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_name() {
        for (options, words) in [
            ("-H", "ps option \"-H\""),
            ("--forest", "ps option \"--forest\""),
            ("-", "ps option \"-\""),
            ("-p 1", "ps option \"-p\""),
            ("f", "ps option \"f\""),
            ("-o nonsense", "\"nonsense\" is not a column"),
            ("-o", "a list of columns is empty"),
            ("-o cmd", "couldn't find PID field"),
        ] {
            let error = table(options).unwrap_err();
            assert!(error.contains(words), "{options}: {error}");
        }
    }
}
