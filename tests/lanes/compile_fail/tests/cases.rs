//! Runs every case, and sees that every case has a twin.

use std::{collections::BTreeSet, fs, path::Path};

fn names(folder: &str) -> BTreeSet<String> {
    fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap_or_else(|error| panic!("cannot list {folder}: {error}"))
        .map(|entry| entry.expect("an entry of a folder").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn every_case_fails_as_written_and_its_twin_compiles() {
    let (fail, pass) = (names("cases/fail"), names("cases/pass"));
    assert!(!fail.is_empty(), "no cases: this lane would prove nothing");
    assert_eq!(
        fail, pass,
        "each case in cases/fail has a twin of the same name in cases/pass"
    );
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/fail/*.rs");
    cases.pass("cases/pass/*.rs");
}
