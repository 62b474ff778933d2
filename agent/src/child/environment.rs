//! The process's environment: as given, the last of a name winning, with HOME filled in from the container's passwd.

use super::resolve::read_file;
use std::ffi::CString;
use std::os::fd::AsFd;

/// More of a passwd file than this is not read.
const LONGEST_PASSWD: usize = 1 << 20;

/// The environment to execute with.
pub fn complete(env: &[String], uid: u32, root: impl AsFd) -> Vec<CString> {
    let mut variables = unique(env);
    let home = variables.iter().position(|variable| variable.starts_with("HOME="));
    let set = home.and_then(|at| variables.get(at)).is_some_and(|variable| variable.len() > "HOME=".len());
    if !set {
        if let Some(at) = home {
            variables.remove(at);
        }
        let passwd = read_file(root, "/etc/passwd", LONGEST_PASSWD).unwrap_or_default();
        variables.push(format!("HOME={}", home_of(uid, &passwd).unwrap_or_else(|| "/".to_owned())));
    }
    variables.into_iter().filter_map(|variable| CString::new(variable).ok()).collect()
}

/// PATH, as the program is looked up with.
pub fn search_path(env: &[String]) -> &str {
    env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("")
}

/// Each name once, at its first place, with its last value.
fn unique(env: &[String]) -> Vec<String> {
    let name =
        |variable: &str| variable.split_once('=').map_or(variable.to_owned(), |(name, _)| name.to_owned());
    let mut last: std::collections::HashMap<String, usize> =
        env.iter().enumerate().map(|(at, variable)| (name(variable), at)).collect();
    env.iter()
        .filter_map(|variable| last.remove(&name(variable)))
        .filter_map(|at| env.get(at).cloned())
        .collect()
}

/// The sixth field of the user's line.
fn home_of(uid: u32, passwd: &[u8]) -> Option<String> {
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split(':').skip(2);
        if fields.next()?.trim().parse() != Ok(uid) {
            return None;
        }
        let home = fields.nth(2)?.trim();
        (!home.is_empty()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:/bin/false\nno:x:34:34:::\n";

    #[test]
    fn home_is_the_users_or_the_root() {
        assert_eq!(home_of(0, PASSWD).as_deref(), Some("/root"));
        assert_eq!(home_of(33, PASSWD).as_deref(), Some("/srv"));
        assert_eq!(home_of(34, PASSWD), None);
        assert_eq!(home_of(1, PASSWD), None);
    }

    #[test]
    fn the_last_value_of_a_name_wins() {
        let env = ["A=1", "B=2", "A=3", "PATH=/x", "PATH=/y"].map(str::to_owned);
        assert_eq!(unique(&env), ["A=3", "B=2", "PATH=/y"]);
        assert_eq!(search_path(&env), "/y");
    }
}
