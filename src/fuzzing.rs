//! Ways in for the fuzzers of `fuzz/`: each takes any bytes, and panics when something is wrong that no input may make
//! wrong. Not part of the library that users see: it exists with `--cfg fuzzing` alone.

pub use crate::agent::fuzzing as agent;
pub use crate::device::fuzzing as device;
pub use crate::machine::fuzzing as machine;

use crate::bundle::{Bundle, spec};
use crate::config::{self, machine::Facts, operator::Operator};
use std::collections::BTreeMap;

/// A `config.json`: it is refused, or decided.
pub fn config(bytes: &[u8]) {
    let Ok(spec) = spec::parse(bytes) else { return };
    let bundle = Bundle {
        directory: "/bundle".into(),
        spec,
        rootfs: "/bundle/rootfs".into(),
        sources: BTreeMap::new(),
    };
    let facts = Facts { processors: 4, memory_mib: 4096 };
    if let Ok(decision) = config::decide("fuzzed", &bundle, &Operator::default(), facts) {
        assert!((1..=32).contains(&decision.machine.vcpus), "{} vcpus", decision.machine.vcpus);
        assert!(decision.machine.memory_mib >= 64, "{} MiB", decision.machine.memory_mib);
    }
}
