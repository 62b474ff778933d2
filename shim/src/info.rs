//! `-info`: what this runtime is and can do.

use crate::action::say;
use crate::failure::Failure;
use crate::options::Options;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::io::Read;
use std::process::{Command, Stdio};

/// The options that are told are no longer than this, in bytes.
const LONGEST: u64 = 4 << 20;
/// The features object of the OCI runtime spec, as JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints it. Standard input has the options that it would be run with.
pub fn print() -> Result<(), Failure> {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_end(&mut input);
    read.map_err(|error| Failure::host("read standard input", &error))?;
    let options = Any::parse_from_bytes(&input)
        .map_err(|error| Failure::invalid(format!("standard input is no message: {error}")))?;
    let told = Some(options).filter(|options| !options.type_url.is_empty());
    let info = RuntimeInfo {
        name: "io.containerd.husk.v2".into(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        }),
        features: features(&Options::of(told.as_ref())?).into(),
        options: told.into(),
        ..Default::default()
    };
    let bytes = info.write_to_bytes();
    say(&bytes.map_err(|error| Failure::invalid(format!("the answer cannot be written: {error}")))?)
}

/// What `husk features` says: the two cannot differ then.
fn features(options: &Options) -> Option<Any> {
    let program = options.program().ok()?;
    let said =
        Command::new(program).arg("features").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let value = Some(said.stdout).filter(|_| said.status.success())?;
    Some(Any { type_url: FEATURES.into(), value, ..Default::default() })
}
