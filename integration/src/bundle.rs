//! A bundle to run: a private writable root filesystem and a `config.json` that a test may change.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Which image a bundle starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// One static program with many names: quick to start.
    Busybox,
    /// apt, dpkg, perl, gcc.
    Debian,
    /// apt, git, fio, stress-ng, Python and its tests; a package mirror in /srv/mirror.
    Work,
}

impl Image {
    /// Where it is unpacked: to be read only.
    pub fn directory(self) -> PathBuf {
        let name = match self {
            Image::Busybox => "HUSK_BUSYBOX",
            Image::Debian => "HUSK_DEBIAN",
            Image::Work => "HUSK_WORK",
        };
        PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `make test`")))
    }
}

/// A bundle. Its root filesystem is an overlay over the image, as Docker makes it, so that tests do not see each
/// other's writes; it is unmounted and removed on drop.
pub struct Bundle {
    /// The bundle's directory.
    pub path: PathBuf,
    /// Its configuration, written by [`Bundle::write`].
    pub config: Value,
}

impl Bundle {
    /// A bundle that runs `args` with runc's default configuration, no terminal, a writable root.
    pub fn new(image: Image, args: &[&str]) -> Bundle {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/var/tmp/husk-it/{}-{number}", std::process::id()));
        for name in ["rootfs", "layer", "layer/upper", "layer/work"] {
            fs::create_dir_all(path.join(name)).expect("the bundle's directories can be made");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.directory().display(),
            path.join("layer/upper").display(),
            path.join("layer/work").display()
        );
        nix::mount::mount(
            Some("overlay"),
            &path.join("rootfs"),
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("the image can be mounted");
        let mut bundle = Bundle { path, config: default_config() };
        bundle.args(args);
        bundle
    }

    /// Changes what is run.
    pub fn args(&mut self, args: &[&str]) {
        self.config["process"]["args"] = json!(args);
    }

    /// Changes any part of the configuration; `pointer` is a JSON pointer to something that exists.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = self.config.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} does not exist"));
        match parent {
            Value::Array(items) if name == "-" => items.push(value),
            other => other[name] = value,
        }
    }

    /// Where the container's root is on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Writes `config.json`.
    pub fn write(&self) -> &Path {
        fs::write(
            self.path.join("config.json"),
            serde_json::to_vec_pretty(&self.config).expect("it is JSON"),
        )
        .expect("config.json can be written");
        &self.path
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path.join("rootfs"), nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What `runc spec` writes, without a terminal and with a writable root: the same for every runtime under test.
fn default_config() -> Value {
    static CONFIG: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let directory = PathBuf::from(format!("/var/tmp/husk-it/{}-spec", std::process::id()));
            fs::create_dir_all(&directory).expect("a directory for the default configuration");
            let done =
                Command::new("runc").arg("spec").current_dir(&directory).status().expect("runc is there");
            assert!(done.success(), "runc spec failed");
            let text = fs::read(directory.join("config.json")).expect("runc spec wrote it");
            let _ = fs::remove_dir_all(&directory);
            let mut config: Value = serde_json::from_slice(&text).expect("runc writes JSON");
            config["process"]["terminal"] = json!(false);
            config["root"]["readonly"] = json!(false);
            config
        })
        .clone()
}
