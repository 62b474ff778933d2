//! The tables of `docs/spec.md` and `docs/threat-model.md` say how each field and each claim is shown. What they name must be
//! there.

use std::path::Path;

/// The table's rows below a heading that has a column of tests: what the row is about, and its tests.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let cells = page.lines().filter(|line| line.starts_with("| "));
    let cells = cells.filter_map(|line| line.trim_end().strip_suffix('|')?.rsplit_once('|'));
    cells.map(|(about, tests)| (about, tests.trim())).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a file of ours has a test of that name. `file` is a path, or the name of a file of either suite.
fn is_test(file: &str, name: &str) -> bool {
    let places = match file.strip_suffix(".rs") {
        Some(_) => vec![file.to_owned()],
        None => vec![format!("tests/it/{file}.rs"), format!("integration/tests/it/{file}.rs")],
    };
    // Properties have arguments.
    let function = format!("fn {name}(");
    places.into_iter().filter_map(|place| std::fs::read_to_string(root().join(place)).ok()).any(|text| {
        let mut attributes = Vec::new();
        text.lines().map(str::trim_start).any(|line| {
            if line.starts_with("#[") {
                attributes.push(line);
                return false;
            }
            let test = line.starts_with(&function) && attributes.contains(&"#[test]");
            attributes.clear();
            test
        })
    })
}

#[test]
fn every_test_that_the_tables_name_exists() {
    let page = std::fs::read_to_string(root().join("docs/spec.md")).unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (about, tests) in rows(&page) {
        let named: Vec<&str> = tests.split('`').filter(|word| word.contains("::")).collect();
        // A field that leads to a table of its own, and one that means nothing here.
        let needs_none = about.contains("see below") || about.contains("for Windows: ignored");
        if named.is_empty() && !needs_none && tests != "test" {
            wrong.push(format!("no test is named for {about}"));
        }
        for test in named {
            seen += 1;
            let (file, name) = test.rsplit_once("::").unwrap();
            if !is_test(file, name) {
                wrong.push(format!("{test} is not a test"));
            }
        }
    }
    assert!(seen > 50, "the tables were not understood: {seen} tests seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
    assert!(named.len() > 60, "the tables were not understood: {} tests seen", named.len());
    let is_there = |test: &&str| {
        let (file, name) = test.rsplit_once("::").unwrap();
        *test == "file::test" || is_test(file, name)
    };
    let wrong: Vec<&str> = named.into_iter().filter(|test| !is_there(test)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_name_that_is_no_test_is_noticed() {
    assert!(is_test("docs", "a_name_that_is_no_test_is_noticed"));
    assert!(
        !is_test("docs", "rows") && !is_test("docs", "a_name_that_is_no_test") && !is_test("nothing", "x")
    );
    assert_eq!(rows("| a | b | `c::d` |\n|---|---|---|\ntext"), [("| a | b ", "`c::d`")]);
}
