//! A directory of the host that containers are given.

use crate::bundle::Bundle;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directory; removed on drop. A test that mounts something below unmounts it first.
pub struct Outside(pub PathBuf);

impl Outside {
    /// A new directory that no other test uses, empty.
    pub fn new(name: &str) -> Outside {
        let path = PathBuf::from(format!("/var/tmp/husk-it/{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Outside(path)
    }

    /// Binds it into a bundle.
    pub fn bound(&self, bundle: &mut Bundle, to: &str, options: &[&str]) {
        Outside::mount(bundle, &self.0, to, options);
    }

    /// Binds anything of the host into a bundle.
    pub fn mount(bundle: &mut Bundle, source: &Path, to: &str, options: &[&str]) {
        let mount = json!({"destination": to, "type": "bind", "source": source, "options": options});
        bundle.config["mounts"].as_array_mut().expect("an array").push(mount);
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
