//! The operator's file: the sample tells the truth, and a wrong one is an error.

use crate::support::{Place, config};
use husk::config::operator::Operator;
use std::path::Path;

#[test]
fn the_sample_holds_every_key_with_its_default() {
    let sample =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.toml")).unwrap();
    assert_eq!(Operator::parse(&sample).unwrap(), Operator::default());
    let shown = format!("{:#?}", Operator::default());
    let keys = shown.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key);
    for key in keys {
        let stands =
            |line: &str| line.starts_with(&format!("{key} =")) || line.starts_with(&format!("# {key} ="));
        assert!(
            sample.lines().any(stands) || sample.contains(&format!("[{key}]")),
            "{key} is not in docs/config.toml"
        );
    }
}

#[test]
fn a_wrong_file_is_told_with_its_name_and_one_that_was_named_must_be_there() {
    let place = Place::new();
    place.write_config(config().to_string());
    let file = place.path("operator.toml");
    std::fs::write(&file, "[machine]\nmemory = 5\n").unwrap();
    let ran = place.husk(&["create", "c"]);
    assert!(
        ran.message().contains(file.to_str().unwrap()) && ran.message().contains("unknown field `memory`"),
        "{}",
        ran.err
    );
    std::fs::remove_file(&file).unwrap();
    assert!(place.husk(&["create", "c"]).message().ends_with("operator.toml: no such file or directory"));
    assert!(place.left().is_empty());
}

#[test]
fn a_kernel_that_is_not_there_or_is_none_is_told() {
    let place = Place::new();
    place.write_config(config().to_string());
    let kernel = place.path("vmlinux");
    std::fs::write(
        place.path("operator.toml"),
        format!("[machine]\nkernel = {kernel:?}\ninitrd = {kernel:?}\n"),
    )
    .unwrap();
    let ran = place.husk(&["create", "c"]);
    assert!(ran.message().contains(kernel.to_str().unwrap()), "{}", ran.err);
    assert_eq!(ran.code, 1);
    assert!(place.left().is_empty());
}
