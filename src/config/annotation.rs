//! Annotations: notes that a bundle carries, and the few by which it may speak to husk.
//!
//! Whoever writes a bundle's annotations need not be the operator (in Kubernetes it is anyone who may make a pod). So
//! none that speaks to husk is heard unless the operator listed it, numbers are clamped to the operator's bounds, and
//! there is none that names a path, a command line or a debugging aid.

use super::error::{ConfigError, invalid, unsupported};
use super::operator::{LEAST_MEMORY_MIB, Operator};
use std::collections::{BTreeMap, HashMap};

/// What the annotations ask of husk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `io.husk.vcpus`
    pub vcpus: Option<u8>,
    /// `io.husk.memory_mib`
    pub memory_mib: Option<u32>,
}

/// The annotations that husk knows.
pub const KNOWN: [&str; 2] = ["io.husk.vcpus", "io.husk.memory_mib"];

/// Reads the wishes and gives all annotations in order, for the container's state.
pub fn decide(
    given: Option<&HashMap<String, String>>,
    operator: &Operator,
) -> Result<(Wishes, BTreeMap<String, String>), ConfigError> {
    let all: BTreeMap<String, String> =
        given.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut wishes = Wishes::default();
    for (name, value) in &all {
        if name.is_empty() {
            return Err(invalid("annotations", "a key is empty"));
        }
        if !(name.starts_with("io.husk.") || name.starts_with("husk.")) {
            continue;
        }
        let field = format!("annotations.{name}");
        if !KNOWN.contains(&name.as_str()) {
            return Err(unsupported(field, "is not known to husk"));
        }
        if !operator.container.annotations.contains(name) {
            return Err(unsupported(
                field,
                "is not allowed by the operator (container.annotations in husk's configuration file)",
            ));
        }
        let number: u32 = value.parse().map_err(|_| invalid(&field, format!("{value:?} is not a number")))?;
        match name.as_str() {
            "io.husk.vcpus" => {
                let clamped = number.clamp(1, u32::from(operator.machine.max_vcpus));
                wishes.vcpus = u8::try_from(clamped).ok();
            }
            _ => wishes.memory_mib = Some(number.max(LEAST_MEMORY_MIB)),
        }
    }
    Ok((wishes, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_one(name: &str, value: &str, allowed: &[&str]) -> Result<Wishes, ConfigError> {
        let mut operator = Operator::default();
        operator.container.annotations = allowed.iter().map(ToString::to_string).collect();
        operator.machine.max_vcpus = 8;
        let given = HashMap::from([(name.to_owned(), value.to_owned())]);
        decide(Some(&given), &operator).map(|(wishes, _)| wishes)
    }

    #[test]
    fn annotations_of_others_are_kept_and_mean_nothing() {
        let given = HashMap::from([("com.example.a".to_owned(), "/etc".to_owned())]);
        let (wishes, all) = decide(Some(&given), &Operator::default()).unwrap();
        assert_eq!(wishes, Wishes::default());
        assert_eq!(all.get("com.example.a").map(String::as_str), Some("/etc"));
    }

    #[test]
    fn one_that_speaks_to_husk_needs_the_operators_word() {
        assert!(
            decide_one("io.husk.vcpus", "2", &[])
                .unwrap_err()
                .to_string()
                .contains("not allowed by the operator")
        );
        assert_eq!(decide_one("io.husk.vcpus", "2", &["io.husk.vcpus"]).unwrap().vcpus, Some(2));
        for name in ["io.husk.kernel", "husk.kernel_params", "io.husk."] {
            assert!(decide_one(name, "x", &[name]).is_err(), "{name}: unknown, even if listed");
        }
    }

    #[test]
    fn numbers_are_clamped_and_words_refused() {
        let allowed = KNOWN;
        assert_eq!(decide_one("io.husk.vcpus", "0", &allowed).unwrap().vcpus, Some(1));
        assert_eq!(decide_one("io.husk.vcpus", "4000000000", &allowed).unwrap().vcpus, Some(8));
        assert_eq!(
            decide_one("io.husk.memory_mib", "1", &allowed).unwrap().memory_mib,
            Some(LEAST_MEMORY_MIB)
        );
        for value in ["", "two", "-1", "1e3", "4294967296"] {
            assert!(decide_one("io.husk.vcpus", value, &allowed).is_err(), "{value:?}");
        }
    }
}
