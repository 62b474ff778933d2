//! Versions of what husk is built from.

use std::path::Path;

/// Floors from published advisories: reads of guest memory (RUSTSEC-2023-0056), flexible arrays (CVE-2023-50711).
const FLOORS: [(&str, [u64; 3]); 2] = [("vm-memory", [0, 12, 2]), ("vmm-sys-util", [0, 12, 0])];

#[test]
fn holes_of_dependencies_are_those_of_older_versions() {
    let locked = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let value = |line: &str| line.split('"').nth(1).map(str::to_owned);
    for (package, floor) in FLOORS {
        let mut seen = 0;
        let mut lines = locked.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("name = ") && value(line).as_deref() == Some(package) {
                let version = lines.next().and_then(value).unwrap();
                let numbers: Vec<u64> = version.split('.').map(|number| number.parse().unwrap()).collect();
                assert!(numbers.as_slice() >= floor.as_slice(), "{package} {version}");
                seen += 1;
            }
        }
        assert!(seen > 0, "{package} is not among the dependencies any more");
    }
}
