//! Kernel parameters. The kernel is the container's own, so any of its parameters may be set, namespaced or not; what
//! runc refuses for the host's sake need not be refused here.

use super::error::{ConfigError, c_string, invalid};
use husk_protocol::Namespaces;
use std::collections::HashMap;

/// Decides; sorted by name, names with dots.
pub fn decide(
    given: &HashMap<String, String>,
    inside: Namespaces,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut parameters = Vec::with_capacity(given.len());
    for (name, value) in given {
        let field = format!("linux.sysctl.{name}");
        let dotted = with_dots(name);
        let parts_are_names = dotted
            .split('.')
            .all(|part| !matches!(part, "" | "/") && !part.starts_with("..") && part != "//");
        let letters = dotted.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
        if !parts_are_names || !letters || dotted.split(['.', '/']).any(str::is_empty) {
            return Err(invalid(field, "is not the name of a kernel parameter"));
        }
        if dotted == "kernel.hostname" && inside.uts {
            return Err(invalid(
                field,
                "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" field",
            ));
        }
        parameters.push((dotted, c_string(&field, value)?));
    }
    parameters.sort();
    Ok(parameters)
}

/// sysctl(8) takes `/` for `.` when it comes first: `net/ipv4/conf/eth0.100/forwarding` is
/// `net.ipv4.conf.eth0/100.forwarding` in the form with dots.
fn with_dots(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes().get(first) == Some(&b'/') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_one(name: &str) -> Result<Vec<(String, String)>, ConfigError> {
        let inside = Namespaces { uts: true, ..Namespaces::default() };
        decide(&HashMap::from([(name.to_owned(), "1".to_owned())]), inside)
    }

    #[test]
    fn both_forms_of_a_name_mean_the_same() {
        assert_eq!(decide_one("net.ipv4.ip_forward").unwrap()[0].0, "net.ipv4.ip_forward");
        assert_eq!(decide_one("net/ipv4/ip_forward").unwrap()[0].0, "net.ipv4.ip_forward");
        assert_eq!(
            decide_one("net/ipv4/conf/eth0.100/forwarding").unwrap()[0].0,
            "net.ipv4.conf.eth0/100.forwarding"
        );
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for name in [
            "",
            ".",
            "..",
            "a..b",
            "../x",
            "net/../../etc/passwd",
            "a b",
            "kernel/",
            "a\0b",
            "/etc",
            "net.ipv4./x",
        ] {
            assert!(decide_one(name).is_err(), "{name:?}");
        }
        assert!(decide_one("kernel.hostname").unwrap_err().to_string().contains("conflicts with the OCI"));
    }
}
