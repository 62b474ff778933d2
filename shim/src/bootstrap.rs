//! What containerd says to `start` on its standard input, and in which form it wants the answer.
//!
//! | containerd | standard input | answer |
//! |---|---|---|
//! | 1.x | the options, or nothing | the address |
//! | 2.0 to 2.2 | the options, or nothing | JSON with the version of the task service |
//! | 2.3 and later | `BootstrapParams` | `BootstrapResult` |

use crate::failure::Failure;
use crate::flags::Flags;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use std::path::PathBuf;

/// The newest task service that we serve.
const NEWEST: u32 = 3;
/// What containerd up to 1.7 understands.
const OLDEST: u32 = 2;

/// What was said.
#[derive(Debug, PartialEq)]
pub struct Bootstrap {
    /// The runtime's options.
    pub options: Option<Any>,
    /// Where the socket goes.
    pub socket_directory: Option<PathBuf>,
    /// containerd's ttrpc address, if it was not told by environment.
    pub ttrpc_address: Option<String>,
    form: Form,
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Json(u32),
    Message,
}

impl Bootstrap {
    /// Understands `input`. `newest` is the environment's MAX_SHIM_VERSION.
    pub fn read(input: &[u8], flags: &Flags, newest: Option<&str>) -> Result<Bootstrap, Failure> {
        if let Some(params) = params(input, flags) {
            // Options are the extension of a runtime's type; others are not for us.
            let mut extensions =
                params.extensions.into_iter().filter_map(|extension| extension.value.into_option());
            return Ok(Bootstrap {
                options: extensions.find(crate::options::known),
                socket_directory: params.socket_dir.filter(|path| !path.is_empty()).map(PathBuf::from),
                ttrpc_address: Some(params.containerd_ttrpc_address).filter(|address| !address.is_empty()),
                form: Form::Message,
            });
        }
        let options = match input {
            [] => None,
            input => Some(
                Any::parse_from_bytes(input)
                    .map_err(|error| Failure::invalid(format!("standard input is no message: {error}")))?,
            ),
        };
        let form = match newest.and_then(|text| text.parse::<u32>().ok()) {
            Some(newest) if newest > OLDEST => Form::Json(newest.min(NEWEST)),
            _ => Form::Plain,
        };
        Ok(Bootstrap { options, socket_directory: None, ttrpc_address: None, form })
    }

    /// The answer: where the server is.
    pub fn answer(&self, address: &str) -> Result<Vec<u8>, Failure> {
        match self.form {
            Form::Plain => Ok(address.as_bytes().to_vec()),
            Form::Json(version) => {
                let answer = serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"});
                Ok(answer.to_string().into_bytes())
            }
            Form::Message => {
                let version = i32::try_from(NEWEST).unwrap_or(i32::MAX);
                let result = BootstrapResult {
                    version,
                    address: address.into(),
                    protocol: "ttrpc".into(),
                    ..Default::default()
                };
                result
                    .write_to_bytes()
                    .map_err(|error| Failure::invalid(format!("the answer cannot be written: {error}")))
            }
        }
    }
}

/// The new form, if it is that. A message with options can be read as one too, but does not name what the flags name.
fn params(input: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    let params = BootstrapParams::parse_from_bytes(input).ok()?;
    let ours = !input.is_empty() && params.instance_id == flags.id && params.namespace == flags.namespace;
    ours.then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;

    fn flags() -> Flags {
        Flags::parse(["-namespace", "k8s.io", "-id", "one", "start"].iter().map(Into::into)).unwrap()
    }

    fn options() -> Any {
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: b"\x32\x01x".to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn containerd_1_gets_an_address_and_containerd_2_a_version_with_it() {
        let input = options().write_to_bytes().unwrap();
        let old = Bootstrap::read(&input, &flags(), None).unwrap();
        assert_eq!(old.options, Some(options()));
        assert_eq!(old.answer("unix:///s").unwrap(), b"unix:///s");
        assert_eq!(
            Bootstrap::read(&[], &flags(), Some("2")).unwrap().answer("unix:///s").unwrap(),
            b"unix:///s"
        );
        for newest in ["3", "4"] {
            let answer = Bootstrap::read(&[], &flags(), Some(newest)).unwrap().answer("unix:///s").unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(
                answer,
                serde_json::json!({"version": 3, "address": "unix:///s", "protocol": "ttrpc"})
            );
        }
    }

    #[test]
    fn the_message_of_containerd_2_3_is_told_from_options_and_answered_by_a_message() {
        let extension = |value: Any| Extension { value: Some(value).into(), ..Default::default() };
        let other = Any { type_url: "containerd.io/other".into(), ..Default::default() };
        let params = BootstrapParams {
            instance_id: "one".into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "/run/c.ttrpc".into(),
            socket_dir: Some("/run/elsewhere".into()),
            extensions: vec![extension(other), extension(options())],
            ..Default::default()
        };
        let read = Bootstrap::read(&params.write_to_bytes().unwrap(), &flags(), Some("3")).unwrap();
        assert_eq!(read.options, Some(options()));
        assert_eq!(read.socket_directory, Some("/run/elsewhere".into()));
        assert_eq!(read.ttrpc_address.as_deref(), Some("/run/c.ttrpc"));
        let answer = BootstrapResult::parse_from_bytes(&read.answer("unix:///s").unwrap()).unwrap();
        assert_eq!(
            (answer.version, answer.address.as_str(), answer.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(Bootstrap::read(b"\xff\xff\xff\xff", &flags(), None).is_err());
    }
}
