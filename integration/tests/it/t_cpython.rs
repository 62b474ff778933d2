//! CPython's own tests of what it asks a system for, test by test with the results that they have under runc.

use crate::r_work::as_docker;
use husk_integration::{bundle::Image, runtime::Runtime, scenario};
use std::collections::BTreeMap;

/// Prints a line for each test, see there.
const PROGRAM: &str = include_str!("cpython.py");

/// Tests that need protocols which the guest's kernel does not have; `docs/validation.md` says why. Parts of their names.
const DIFFERENT: [&str; 5] =
    ["CANTest.", "ISOTPTest.", "J1939Test.", "LinuxKernelCryptoAPI.", "SCTPStreamTest."];

/// The result of each test.
fn results(runtime: Runtime, modules: &[&str]) -> BTreeMap<String, String> {
    let args = [&["python3", "-c", PROGRAM, "1200"], modules].concat();
    let output = scenario::run(runtime, Image::Work, &args, as_docker);
    let read = |line: &str| line.split_once(' ').map(|(result, name)| (name.to_owned(), result.to_owned()));
    let results: BTreeMap<String, String> = output.stdout.lines().filter_map(read).collect();
    let whole = |module: &&str| results.contains_key(&format!("{module} as a whole"));
    assert!(output.code == 0 && modules.iter().all(whole), "{output:?}");
    results
}

/// Runs modules under both, and complains of every test that does not pass under husk and has another result under runc. The tests of a module know
/// times that a slow machine cannot keep: what differs is asked once more.
fn same_results(modules: &[&str]) {
    let (mut expected, mut seen) = (results(Runtime::Runc, modules), results(Runtime::Husk, modules));
    let mut differ = differences(&expected, &seen);
    if !differ.is_empty() {
        eprintln!("once more, because of\n{}", differ.join("\n"));
        let again = |first: &mut BTreeMap<String, String>, runtime| {
            for (name, result) in results(runtime, modules) {
                let one = first.entry(name).or_insert_with(|| "missing".into());
                if result == "passed" {
                    *one = result;
                }
            }
        };
        again(&mut expected, Runtime::Runc);
        again(&mut seen, Runtime::Husk);
        differ = differences(&expected, &seen);
    }
    let passed = seen.values().filter(|result| *result == "passed").count();
    eprintln!("{passed} of {} passed", seen.len());
    assert!(differ.is_empty() && passed > 40, "{passed} passed, these differ:\n{}", differ.join("\n"));
}

fn differences(expected: &BTreeMap<String, String>, seen: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(seen.keys()).collect();
    let result =
        |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned().unwrap_or_else(|| "missing".into());
    names
        .into_iter()
        .filter(|name| result(seen, name) != "passed" && result(expected, name) != result(seen, name))
        .filter(|name| !name.ends_with(" as a whole") && !DIFFERENT.iter().any(|part| name.contains(part)))
        .map(|name| format!("{name}: runc {}, husk {}", result(expected, name), result(seen, name)))
        .collect()
}

#[test]
fn cpythons_tests_of_files_have_the_results_that_they_have_under_runc() {
    same_results(scenario::size(
        &["test_os", "test_posix", "test_fcntl", "test_mmap", "test_tempfile", "test_shutil", "test_glob"][..],
        &["test_fcntl", "test_mmap"],
    ));
}

#[test]
fn cpythons_tests_of_paths_have_the_results_that_they_have_under_runc() {
    if scenario::whole() {
        same_results(&["test_pathlib"]);
    }
}

#[test]
fn cpythons_tests_of_processes_and_sockets_have_the_results_that_they_have_under_runc() {
    if scenario::whole() {
        same_results(&[
            "test_sqlite3",
            "test_subprocess",
            "test_signal",
            "test_socket",
            "test_pty",
            "test_time",
        ]);
    }
}
