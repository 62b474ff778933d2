//! Mounts: which become shares of host paths, and which are file systems of the guest kernel.

use super::error::{ConfigError, c_string, invalid, path_string, unsupported};
use super::mount_option::Options;
use crate::bundle::Source;
use crate::machine::order::{Export, ExportDevice};
use husk_protocol::{Mount, MountSource};
use std::collections::BTreeMap;

/// File systems that the guest's kernel makes from nothing. Whatever needs a device or a path of the host as its source
/// cannot be mounted inside; a bind mount of a directory where the host has mounted it can.
const GUEST_FILE_SYSTEMS: [&str; 9] =
    ["proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "bpf", "securityfs", "hugetlbfs"];

/// Decides all mounts. Shares get decimal names from 0, in order.
pub fn decide(
    given: &[oci_spec::runtime::Mount],
    sources: &BTreeMap<usize, Source>,
) -> Result<(Vec<Mount>, Vec<Export>), ConfigError> {
    let mut mounts = Vec::with_capacity(given.len());
    let mut exports = Vec::new();
    for (index, mount) in given.iter().enumerate() {
        let field = format!("mounts[{index}]");
        let mut options = Options::parse(mount.options().as_deref().unwrap_or(&[]));
        check(&field, mount, &options)?;
        let source = match sources.get(&index) {
            Some(source) if options.bind => {
                let export = share(exports.len(), source, &options);
                options.inherit(source.flags);
                let name = export.name.clone();
                exports.push(export);
                MountSource::Share { name, directory: source.directory, recursive: options.recursive }
            }
            _ => file_system(&field, mount)?,
        };
        mounts.push(Mount {
            destination: destination(&format!("{field}.destination"), mount)?,
            source,
            attributes: options.attributes,
            propagation: options.propagation,
            data: c_string(&format!("{field}.options"), &options.data.join(","))?,
            copy_up: options.copy_up,
        });
    }
    Ok((mounts, exports))
}

/// A share is read-only on the host's side too. (runc's `ro` with `rbind` leaves mounts below writable; a share does not.)
fn share(number: usize, source: &Source, options: &Options) -> Export {
    Export {
        device: ExportDevice::Share,
        name: number.to_string(),
        source: source.path.clone(),
        read_only: options.read_only(),
        recursive: options.recursive,
        access_times: options.access_times(),
        all_access_times: options.all_access_times(),
    }
}

fn check(field: &str, mount: &oci_spec::runtime::Mount, options: &Options) -> Result<(), ConfigError> {
    let at = format!("{field}.options");
    if options.id_map || mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        let place = if options.id_map { at } else { format!("{field}.uidMappings") };
        return Err(unsupported(place, "id-mapped mounts are not supported by husk"));
    }
    if options.remount {
        return Err(unsupported(
            at,
            "remount is not supported by husk: give the options with the mount itself",
        ));
    }
    if options.bind && !options.data.is_empty() {
        let reason = format!(
            "bind mounts cannot have any filesystem-specific options applied ({})",
            options.data.join(",")
        );
        return Err(invalid(at, reason));
    }
    if options.copy_up && (options.bind || mount.typ().as_deref() != Some("tmpfs")) {
        return Err(invalid(at, "tmpcopyup is for tmpfs alone"));
    }
    Ok(())
}

/// runc takes a relative destination as relative to `/`.
fn destination(field: &str, mount: &oci_spec::runtime::Mount) -> Result<String, ConfigError> {
    let text = path_string(field, mount.destination())?;
    match text.as_str() {
        "" => Err(invalid(field, "must not be empty")),
        absolute if absolute.starts_with('/') => Ok(text),
        relative => Ok(format!("/{relative}")),
    }
}

fn file_system(field: &str, mount: &oci_spec::runtime::Mount) -> Result<MountSource, ConfigError> {
    let kind = c_string(&format!("{field}.type"), mount.typ().as_deref().unwrap_or(""))?;
    match kind.as_str() {
        "cgroup" | "cgroup2" => Ok(MountSource::Cgroup),
        known if GUEST_FILE_SYSTEMS.contains(&known) => {
            let source = mount.source().as_deref().unwrap_or(std::path::Path::new(known));
            Ok(MountSource::Filesystem { source: path_string(&format!("{field}.source"), source)?, kind })
        }
        "" | "none" | "bind" => Err(invalid(
            format!("{field}.type"),
            "names no file system, and the options hold neither bind nor rbind",
        )),
        other => Err(unsupported(
            format!("{field}.type"),
            format!("{other:?} cannot be mounted in the guest: mount it on the host and bind it in"),
        )),
    }
}
