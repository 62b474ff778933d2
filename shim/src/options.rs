//! What containerd's configuration says for this runtime: which `husk`, which store.
//!
//! A client may send runc's own options (`containerd.runc.v1.Options`), and CRI sends `runtimeoptions.v1.Options` to every
//! runtime that it does not know by name: the path of a file, which is then husk's configuration, or TOML.

use crate::failure::Failure;
use containerd_shim_protos::shim::oci::Options as Runc;
use protobuf::well_known_types::any::Any;
use protobuf::{CodedInputStream, Message};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const RUNC: &str = "containerd.runc.v1.Options";
const GENERAL: &str = "runtimeoptions.v1.Options";
/// Where the options of a container are kept in its bundle, for `delete`.
const FILE: &str = "husk-options.json";
/// Below it every namespace has a store.
const ROOT: &str = "/run/containerd/husk";
/// The longest options file of ours, in bytes.
const LONGEST: u64 = 1 << 16;

/// What they come to. Also the form in CRI's configuration.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The `husk` program.
    #[serde(rename = "BinaryName")]
    pub binary_name: String,
    /// Where states are kept, instead of [`ROOT`].
    #[serde(rename = "Root")]
    pub root: String,
    /// Whether systemd makes control groups.
    #[serde(rename = "SystemdCgroup")]
    pub systemd_cgroup: bool,
    /// The cgroup that the shim joins.
    #[serde(rename = "ShimCgroup")]
    pub shim_cgroup: String,
    /// husk's configuration, instead of /etc/husk/config.toml.
    #[serde(rename = "ConfigPath")]
    pub config_path: String,
}

/// Whether it is of a type that [`Options::of`] takes.
pub fn known(any: &Any) -> bool {
    matches!(name(any), RUNC | GENERAL)
}

fn name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

impl Options {
    /// Understands what came with a request.
    pub fn of(any: Option<&Any>) -> Result<Options, Failure> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
        let wrong =
            |error: protobuf::Error| Failure::invalid(format!("options of type {}: {error}", any.type_url));
        match name(any) {
            RUNC => Runc::parse_from_bytes(&any.value).map(Options::of_runc).map_err(wrong),
            GENERAL => {
                let (path, body) = general(&any.value).map_err(wrong)?;
                let mut options = match body.as_str() {
                    "" => Options::default(),
                    body => toml::from_str(body)
                        .map_err(|error| Failure::invalid(format!("options: {}", error.message())))?,
                };
                if !path.is_empty() {
                    options.config_path = path;
                }
                Ok(options)
            }
            other => {
                Err(Failure::invalid(format!("options of type {other} are not for io.containerd.husk.v2")))
            }
        }
    }

    fn of_runc(given: Runc) -> Options {
        // The rest says how runc makes a container, which a machine does not need to know: no_pivot_root,
        // no_new_keyring, criu's paths; the FIFOs are opened as they are (io_uid, io_gid).
        Options {
            binary_name: given.binary_name,
            root: given.root,
            systemd_cgroup: given.systemd_cgroup,
            shim_cgroup: given.shim_cgroup,
            config_path: String::new(),
        }
    }

    /// Where the store of a namespace is.
    pub fn store(&self, namespace: &str) -> PathBuf {
        let root = if self.root.is_empty() { ROOT } else { &self.root };
        Path::new(root).join(namespace)
    }

    /// husk's configuration, if it is not in the usual place.
    pub fn config_path(&self) -> Option<&Path> {
        Some(Path::new(&self.config_path)).filter(|path| !path.as_os_str().is_empty())
    }

    /// The `husk` program: as configured, or beside this one, or in PATH.
    pub fn program(&self) -> Result<PathBuf, Failure> {
        let wanted = Path::new(if self.binary_name.is_empty() { "husk" } else { &self.binary_name });
        if wanted.is_absolute() {
            return Ok(wanted.to_owned());
        }
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let mut places = beside.into_iter().chain(std::env::split_paths(&paths));
        let found = places.find_map(|place| Some(place.join(wanted)).filter(|program| program.is_file()));
        found.ok_or_else(|| {
            Failure::not_found(format!("{}: not found beside the shim nor in $PATH", wanted.display()))
        })
    }

    /// Keeps them in the bundle.
    pub fn write(&self, bundle: &Path) -> Result<(), Failure> {
        let bytes =
            serde_json::to_vec(self).map_err(|error| Failure::host("write the options", &error.into()))?;
        husk::host::file::replace(bundle, FILE, &bytes)
            .map_err(|error| Failure::host(&format!("write {}", bundle.join(FILE).display()), &error))
    }

    /// Those that are kept in a bundle; the usual ones if there are none.
    pub fn read(bundle: &Path) -> Options {
        let bytes = husk::host::file::read_bounded(&bundle.join(FILE), LONGEST).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// The fields of `runtimeoptions.v1.Options`: 1 type_url, 2 config_path, 3 config_body. It is in no crate.
fn general(bytes: &[u8]) -> Result<(String, String), protobuf::Error> {
    let mut stream = CodedInputStream::from_bytes(bytes);
    let (mut path, mut body) = (String::new(), String::new());
    while let Some(tag) = stream.read_raw_tag_or_eof()? {
        match tag {
            10 => drop(stream.read_string()?),
            18 => path = stream.read_string()?,
            26 => body = stream.read_string()?,
            tag => protobuf::rt::skip_field_for_tag(tag, &mut stream)?,
        }
    }
    Ok((path, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: &[u8]) -> Any {
        Any { type_url: name.into(), value: value.to_vec(), ..Default::default() }
    }

    #[test]
    fn runcs_options_and_cris_are_understood_and_others_refused_by_name() {
        let runc = Runc { binary_name: "/opt/husk".into(), root: "/run/x".into(), ..Default::default() };
        let options = Options::of(Some(&any(RUNC, &runc.write_to_bytes().unwrap()))).unwrap();
        assert_eq!(options.program().unwrap(), Path::new("/opt/husk"));
        assert_eq!(options.store("k8s.io"), Path::new("/run/x/k8s.io"));

        let body = b"BinaryName = \"/opt/husk\"\n";
        let mut message = vec![18, 4];
        message.extend(b"/etc");
        message.extend([26, body.len() as u8]);
        message.extend(body);
        let options = Options::of(Some(&any(&format!("types.containerd.io/{GENERAL}"), &message))).unwrap();
        assert_eq!(options.binary_name, "/opt/husk");
        assert_eq!(options.config_path(), Some(Path::new("/etc")));

        let error = Options::of(Some(&any("io.example.Options", b""))).unwrap_err();
        assert_eq!(error.code, ttrpc::Code::INVALID_ARGUMENT);
        assert!(error.message.contains("io.example.Options"), "{error}");
        assert!(Options::of(Some(&any(RUNC, b"\xff"))).is_err());
        assert!(Options::of(Some(&any(GENERAL, &[26, 4, b'a', b'=', b'1', b'\n']))).is_err());
        assert_eq!(Options::of(None).unwrap(), Options::default());
    }

    #[test]
    fn what_was_written_into_a_bundle_is_read_and_a_bundle_without_means_the_usual() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Options::read(bundle.path()), Options::default());
        let options = Options { root: "/run/x".into(), ..Default::default() };
        options.write(bundle.path()).unwrap();
        assert_eq!(Options::read(bundle.path()), options);
    }
}
