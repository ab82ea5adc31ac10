//! Is `docs/status.md` complete, and does every test that it names exist?

use std::collections::BTreeMap;

use flux_tests::data_file;

#[test]
fn every_feature_has_one_line_and_its_test_exists() {
    let text = std::fs::read_to_string(data_file("../docs/status.md")).unwrap();
    let mut seen: BTreeMap<u32, &str> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| F")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _, state, proof] = cells[..] else {
            panic!("not four columns: {line}")
        };
        let number = number.trim_start_matches('F').parse().unwrap();
        assert!(seen.insert(number, state).is_none(), "twice: {line}");
        match state {
            "works" | "error" => assert!(exists(proof), "no such test: {line}"),
            "absent" => {}
            _ => panic!("works, error or absent: {line}"),
        }
    }
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        (1..=290).collect::<Vec<_>>()
    );
}

/// Returns true when `proof` begins with a test of these suites (`e2e::boot::name`) or names a crate's own tests.
fn exists(proof: &str) -> bool {
    let name = proof
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .trim_matches('`');
    if let Some(krate) = name.strip_suffix("::tests") {
        return data_file(&format!("../{krate}/Cargo.toml")).is_file();
    }
    let Some((path, function)) = name.rsplit_once("::") else {
        return false;
    };
    let file = data_file(&format!("{}.rs", path.replace("::", "/")));
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {function}()")))
}
