//! Who may import whom, as an allow-list. A module that is not in it may import nothing.

use crate::support::sources;
use std::path::Path;

/// Module (or file, which then has a line of its own), and the modules that it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("host", &[]),
    ("error", &[]),
    ("log", &[]),
    ("bundle", &["host", "error"]),
    // Of the machine only what its order holds; what is decided is told in its words.
    ("config", &["bundle", "machine::order", "error"]),
    ("device", &["host", "error"]),
    ("machine", &["device", "host", "log", "error"]),
    ("agent", &["host", "error"]),
    ("process", &["agent", "config", "host", "log", "error"]),
    ("container", &["bundle", "config", "machine", "agent", "process", "device", "host", "log", "error"]),
    // What is decided is not made here: `config` for the operator's file and what `features` names.
    ("cli", &["container", "bundle", "config", "host", "log", "error"]),
    // The hidden verbs are the machine process, the stand-in and the maker of templates.
    ("cli/machine.rs", &["container::conductor", "machine", "process", "device", "host", "log", "error"]),
    ("cli/stand_in.rs", &["container::stand_in", "process", "log"]),
    ("cli/template_maker.rs", &["container::template_maker", "process", "log"]),
    // For the fuzzers alone: ways in to each module.
    ("fuzzing.rs", &["agent", "bundle", "config", "device", "machine"]),
    ("lib.rs", &[]),
    ("main.rs", &["cli"]),
];

/// Crates that only some may see.
const CRATES: &[(&str, &[&str])] = &[
    ("oci_spec", &["bundle", "config", "container"]),
    ("kvm_ioctls", &["machine"]),
    ("kvm_bindings", &["machine"]),
    ("libseccomp", &["config", "cli/version.rs"]),
    ("clap", &["cli"]),
];

#[test]
fn modules_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let file =
            path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, imported) in imports(&text) {
            if !may(file, &imported) {
                wrong.push(format!("src/{file}:{number}: {} may not import crate::{imported}", module(file)));
            }
        }
        for (number, line) in code(&text) {
            for (name, seen_by) in CRATES {
                let names = line.contains(&format!("{name}::"));
                if names && !seen_by.iter().any(|seer| *seer == file || *seer == module(file)) {
                    wrong.push(format!("src/{file}:{number}: {} may not see {name}", module(file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_agent_sees_only_the_protocol_of_ours() {
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("agent/Cargo.toml")).unwrap();
    let ours: Vec<&str> = manifest.lines().filter(|line| line.starts_with("husk")).collect();
    assert!(ours.iter().all(|line| line.starts_with("husk-protocol")), "{ours:?}");
    for path in sources("agent/protocol/src") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("husk::"), "{}", path.display());
    }
}

/// Everything in this test would be for nothing if it did not see imports in all their forms.
#[test]
fn all_forms_of_an_import_are_seen() {
    let text = "use crate::host;\n// use crate::cli;\nuse crate::machine::{order, control::wire};\nuse crate::{\n    bundle::Bundle,\n    \
                config::{self, mount},\n};\nlet x = crate::device::Memory::new();\n/// [`crate::process`]\npub(crate) fn f() {}\n";
    let seen: Vec<(usize, String)> = imports(text);
    let expected = [
        (1, "host"),
        (3, "machine::order"),
        (3, "machine::control"),
        (4, "bundle::Bundle"),
        (4, "config"),
        (4, "config::mount"),
        (8, "device::Memory"),
    ];
    assert_eq!(seen, expected.map(|(line, path)| (line, path.to_owned())));
}

fn may(file: &str, imported: &str) -> bool {
    let own = module(file);
    let allowed = ALLOWED
        .iter()
        .find(|(name, _)| *name == file)
        .or_else(|| ALLOWED.iter().find(|(name, _)| *name == own));
    let inside = imported == own || imported.starts_with(&format!("{own}::"));
    let listed = |one: &str| imported == one || imported.starts_with(&format!("{one}::"));
    inside || allowed.is_some_and(|(_, list)| list.iter().any(|one| listed(one)))
}

/// `src/host/file.rs` belongs to `host`, `src/error.rs` to `error`; `lib.rs` and `main.rs` stand for themselves.
fn module(file: &str) -> &str {
    match file {
        "lib.rs" | "main.rs" => file,
        _ => file.split('/').next().unwrap().trim_end_matches(".rs"),
    }
}

/// Lines of code: what stands in comments imports nothing.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap().to_owned()));
    lines.filter(|(_, line)| !line.trim().is_empty()).collect()
}

/// Every path that begins with `crate::` (for `main.rs`: `husk::`), two names deep, with the line where it begins.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut joined = String::new();
    let mut starts = Vec::new();
    for (number, line) in code(text) {
        starts.push((joined.len(), number));
        joined.push_str(&line);
        joined.push('\n');
    }
    let line_of =
        |at: usize| starts.iter().rev().find(|(start, _)| *start <= at).map_or(0, |(_, number)| *number);
    let mut found = Vec::new();
    for keyword in ["crate::", "husk::"] {
        for (at, _) in joined.match_indices(keyword) {
            let before = joined[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                continue;
            }
            let mut paths = Vec::new();
            read_tree(&joined[at + keyword.len()..], "", &mut paths);
            found.extend(paths.into_iter().map(|path| (line_of(at), path)));
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// Reads `a::b`, `a::{b, c::d}` or `{a::b, c}` and gives the paths, cut after their second name.
fn read_tree(text: &str, prefix: &str, paths: &mut Vec<String>) {
    let text = text.trim_start();
    let cut =
        |path: &str| path.split("::").filter(|name| *name != "self").take(2).collect::<Vec<_>>().join("::");
    let Some(inside) = text.strip_prefix('{') else {
        let name: String =
            text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
        match text[name.len()..].strip_prefix("::") {
            Some(rest) if !rest.starts_with(['*', '<']) => read_tree(rest, &path, paths),
            _ => paths.push(cut(&path)),
        }
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !inside[start..at].trim().is_empty() {
                    read_tree(&inside[start..at], prefix, paths);
                }
                start = at + 1;
                if letter == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}
