//! From the bytes of a `config.json` to the OCI runtime spec's types.
//!
//! Errors name the field. Properties that the spec does not know are ignored, because the spec demands it; properties
//! that it does know and that our types lack are refused, because what is asked for is never dropped in silence.

use super::objects::Objects;
use crate::error::{ErrorKind, Kind};
use oci_spec::runtime::{Process, Spec};

/// The longest `config.json`, in bytes. One with a large environment and a large seccomp profile has some hundred KiB.
pub const LONGEST: u64 = 8 << 20;

/// What the whole of a specification is called in an error.
const TOP: &str = "(top level)";
/// Top-level properties of the spec that describe other platforms, or that our types do not have.
const OTHER_PLATFORMS: [&str; 1] = ["freebsd"];

/// Why it is not a specification.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// It is not JSON.
    #[error("not valid JSON: {0}")]
    NotJson(String),
    /// A property has a wrong type or an unknown value.
    #[error("{field}: {reason}")]
    Field {
        /// Its path, `linux.namespaces[2].type`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A property that we know we do not understand.
    #[error("{0}: not supported by husk")]
    Unsupported(String),
    /// Another version of the spec.
    #[error("ociVersion: {0:?} is not a version of the OCI runtime spec that husk knows (1.x)")]
    Version(String),
}

impl Kind for SpecError {
    fn kind(&self) -> ErrorKind {
        match self {
            SpecError::Unsupported(_) | SpecError::Version(_) => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Reads a specification.
pub fn parse(bytes: &[u8]) -> Result<Spec, SpecError> {
    let (spec, ignored): (Spec, Vec<String>) = read(bytes)?;
    if let Some(property) = ignored.into_iter().find(|path| OTHER_PLATFORMS.contains(&path.as_str())) {
        return Err(SpecError::Unsupported(property));
    }
    check_version(spec.version())?;
    Ok(spec)
}

/// Reads a process alone, as `exec --process` has it.
pub fn parse_process(bytes: &[u8]) -> Result<Process, SpecError> {
    read(bytes).map(|(process, _)| process)
}

/// Reads anything of the spec, with the paths of the properties that were ignored.
pub fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>), SpecError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(Objects(&mut json), &mut track);
    let mut ignored = Vec::new();
    let parsed = serde_ignored::deserialize(tracked, |path| ignored.push(path.to_string()));
    let parsed = parsed.and_then(|value| json.end().map(|()| value));
    parsed.map(|value| (value, ignored)).map_err(|error| describe(&error, &track.path().to_string(), bytes))
}

fn describe(error: &serde_json::Error, field: &str, bytes: &[u8]) -> SpecError {
    // What should have been a word and is something else is told as if it were no JSON.
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    match error.classify() {
        serde_json::error::Category::Syntax if field != "." && is_json() => {
            SpecError::Field { field: field.to_owned(), reason: format!("not one of its words ({error})") }
        }
        serde_json::error::Category::Data if field != "." => {
            SpecError::Field { field: field.to_owned(), reason: error.to_string() }
        }
        serde_json::error::Category::Data => {
            SpecError::Field { field: TOP.into(), reason: error.to_string() }
        }
        _ => SpecError::NotJson(error.to_string()),
    }
}

/// Semantic versioning: any 1.x is compatible. runc takes the same.
fn check_version(version: &str) -> Result<(), SpecError> {
    let mut parts = version.splitn(3, '.');
    let number = |part: Option<&str>| {
        part.is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
    };
    let known = parts.next() == Some("1")
        && number(parts.next())
        && parts.next().is_some_and(|patch| patch.starts_with(|first: char| first.is_ascii_digit()));
    if known { Ok(()) } else { Err(SpecError::Version(version.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_1_x_are_taken_and_others_are_not() {
        for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.3.0", "1.0.0-rc5"] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in ["", "1", "1.0", "2.0.0", "0.9.0", "v1.0.0", "1.x.0", "1.0.x", "11.0.0"] {
            assert_eq!(check_version(version), Err(SpecError::Version(version.into())), "{version}");
        }
    }

    #[test]
    fn an_unknown_property_is_ignored_and_one_of_another_platform_is_refused() {
        assert!(parse(br#"{"ociVersion": "1.0.0", "x-unknown": {"a": 1}}"#).is_ok());
        let refused = parse(br#"{"ociVersion": "1.0.0", "freebsd": {"devices": []}}"#);
        assert_eq!(refused, Err(SpecError::Unsupported("freebsd".into())));
    }

    #[test]
    fn a_wrong_type_deep_inside_is_named() {
        let text =
            br#"{"ociVersion": "1.0.0", "linux": {"namespaces": [{"type": "pid"}, {"type": "galaxy"}]}}"#;
        let SpecError::Field { field, reason } = parse(text).unwrap_err() else { panic!("a field") };
        assert_eq!(field, "linux.namespaces[1].type");
        assert!(reason.contains("galaxy"), "{reason}");
    }
}
