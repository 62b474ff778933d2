//! Names of the host's users.

use std::path::Path;

/// The name of a user in /etc/passwd, or `#UID`, as runc shows it. (A static program cannot ask other name services.)
pub fn name(uid: u32) -> String {
    let passwd = super::file::read_bounded(Path::new("/etc/passwd"), 1 << 20).unwrap_or_default();
    find(&String::from_utf8_lossy(&passwd), uid).unwrap_or_else(|| format!("#{uid}"))
}

fn find(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_id_and_a_broken_line_is_passed_over() {
        let passwd = "broken\nroot:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(find(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(find(passwd, 1001), None);
    }
}
