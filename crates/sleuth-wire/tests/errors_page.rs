//! `docs/errors.md` has every class, reason and drop reason, none that is not there, and says of
//! each whether to try again.

use std::collections::BTreeMap;

use sleuth_core::{DropReason, ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_wire::{class_to_wire, code};
use tonic::Code;

const PAGE: &str = include_str!("../../../docs/errors.md");

/// The rows of the tables whose first heading is `heading`, without code marks, by first cell.
fn tables(heading: &str) -> BTreeMap<String, Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    let mut rows = BTreeMap::new();
    let mut within = false;
    for line in PAGE.lines() {
        let starts_with = cells(line)[0] == heading && line.starts_with('|');
        within = line.starts_with('|') && (within || starts_with);
        if !within || starts_with || line.starts_with("|---") {
            continue;
        }
        let mut row = cells(line);
        let name = row.remove(0);
        assert!(row.iter().all(|cell| !cell.is_empty()), "{line}");
        assert!(rows.insert(name.clone(), row).is_none(), "{name} twice");
    }
    rows
}

fn names(rows: &BTreeMap<String, Vec<String>>) -> Vec<&str> {
    rows.keys().map(String::as_str).collect()
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names
}

/// As gRPC writes it: `INVALID_ARGUMENT`.
fn spelled(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn again(retryable: bool) -> &'static str {
    if retryable { "yes" } else { "no" }
}

#[test]
fn every_class_has_its_code_and_says_whether_to_try_again() {
    let rows = tables("class");
    assert_eq!(names(&rows), sorted(ErrorClass::ALL.map(ErrorClass::name)));
    for class in ErrorClass::ALL {
        let row = &rows[class.name()];
        assert_eq!(row[0], spelled(code(class)), "{class}");
        assert_eq!(row[1], again(class.is_retryable()), "{class}");
        let wire = class_to_wire(class).as_str_name().to_lowercase();
        assert_eq!(wire, format!("error_class_{class}"));
    }
}

#[test]
fn every_reason_says_whether_to_try_again() {
    let rows = tables("reason");
    assert_eq!(names(&rows), sorted(Reason::ALL.iter().map(|reason| reason.name())));
    let class_named = |name: &str| {
        let found = ErrorClass::ALL.into_iter().find(|class| class.name() == name);
        found.unwrap_or_else(|| panic!("no class is named {name}"))
    };
    for &reason in Reason::ALL {
        let row = &rows[reason.name()];
        for class in row[0].split(", ").map(class_named) {
            let failure = Failure::new(class, reason, "");
            assert_eq!(row[1], again(failure.is_retryable()), "{reason} as {class}");
        }
    }
}

#[test]
fn every_drop_reason_is_there() {
    let rows = tables("drop reason");
    assert_eq!(names(&rows), sorted(DropReason::ALL.map(DropReason::name)));
    for number in 1.. {
        let Ok(wire) = v1::DropReason::try_from(number) else { break };
        let name = wire.as_str_name().to_lowercase().replace("drop_reason_", "");
        assert!(rows.contains_key(&name), "{name}");
    }
}
