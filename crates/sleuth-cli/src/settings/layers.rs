//! Where values come from, and which of them wins.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Kind, by_name};
use super::values::shown;
use super::{Effective, Flags};
use crate::environment::{ENDPOINT_KEY, TOKEN};

/// Names the file.
pub(super) const CONFIG_VARIABLE: &str = "SLEUTH_CONFIG";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
}

/// What is wrong with a setting. Values of keys that are not known are not repeated: nobody knows
/// what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The value is not allowed.
    Value { key: &'static str, value: String, allowed: &'static str, origin: Origin },
    /// Nobody knows the key.
    Unknown { name: String, near: Option<String>, origin: Origin },
    /// The file cannot be read, or is no TOML.
    File { path: PathBuf, why: String },
    /// Settings that do not go together.
    Together(String),
}

/// One value as it was said.
struct Said {
    key: &'static Key,
    text: String,
    origin: Origin,
}

/// The effective value of every key.
pub(super) fn merge(
    file: Option<&Path>,
    variables: &[(String, String)],
    flags: &Flags,
    faults: &mut Vec<Fault>,
) -> Vec<Effective> {
    // The later wins.
    let mut said = file.map_or_else(Vec::new, |file| of_file(file, faults));
    said.extend(of_variables(variables, faults));
    said.extend(flags.values.iter().map(|&(key, ref text)| {
        let origin = Origin::Flag(key.flag);
        Said { key, text: text.clone(), origin }
    }));
    keys::all()
        .map(|key| {
            let last = said.iter().rfind(|said| said.key.name == key.name);
            let (text, origin) = last.map_or_else(
                || (key.default.map(str::to_owned), Origin::Default),
                |said| (Some(said.text.clone()), said.origin.clone()),
            );
            Effective { key, text, origin }
        })
        .collect()
}

fn of_file(path: &Path, faults: &mut Vec<Fault>) -> Vec<Said> {
    let mut fail = |why: String| faults.push(Fault::File { path: path.to_owned(), why });
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            fail(error.to_string());
            return Vec::new();
        }
    };
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        // Without the line itself: it may hold what nobody should read.
        let place = error.span().map_or(0, |span| line(&text, &span));
        fail(format!("line {place}: {}", error.message()));
    }
    let mut said = Vec::new();
    for (section, content) in table.get_ref() {
        let origin =
            |span: Range<usize>| Origin::File { path: path.to_owned(), line: line(&text, &span) };
        let Some(entries) = content.get_ref().as_table() else {
            faults.push(Fault::unknown(section.get_ref(), origin(section.span())));
            continue;
        };
        for (entry, value) in entries {
            let name = format!("{}.{}", section.get_ref(), entry.get_ref());
            let origin = origin(entry.span());
            match by_name(&name) {
                None => faults.push(Fault::unknown(&name, origin)),
                Some(key) => match plain(key.kind, value.get_ref()) {
                    Some(text) => said.push(Said { key, text, origin }),
                    None => faults.push(Fault::value(key, value.get_ref().type_str(), origin)),
                },
            }
        }
    }
    said
}

/// The text of a TOML value that is of the right kind.
fn plain(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Text, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Number, DeValue::Integer(number)) if number.radix() == 10 => {
            Some(number.as_str().replace('_', ""))
        }
        (Kind::Number, DeValue::Float(number)) => Some(number.as_str().replace('_', "")),
        (Kind::Switch, DeValue::Boolean(switch)) => Some(switch.to_string()),
        _ => None,
    }
}

fn of_variables(variables: &[(String, String)], faults: &mut Vec<Fault>) -> Vec<Said> {
    let mut said = Vec::new();
    for (name, text) in variables {
        if [CONFIG_VARIABLE, ENDPOINT_KEY, TOKEN].contains(&name.as_str()) || is_of_kubernetes(name)
        {
            continue;
        }
        let origin = Origin::Variable(name.clone());
        match keys::all().find(|key| key.variable() == *name) {
            Some(key) => said.push(Said { key, text: text.clone(), origin }),
            None => faults.push(Fault::unknown(name, origin)),
        }
    }
    said
}

/// Kubernetes tells every pod about every service; of one that is called `sleuth…` in variables
/// that look like ours.
fn is_of_kubernetes(name: &str) -> bool {
    let port = name.rsplit_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty() || rest.starts_with('_') && (rest.contains("_TCP") || rest.contains("_UDP"))
    });
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|&b| b == b'\n').count() + 1
}

// === impl Fault ===

impl Fault {
    pub(super) fn value(key: &Key, value: &str, origin: Origin) -> Self {
        Self::Value { key: key.name, value: shown(value), allowed: key.allowed, origin }
    }

    /// With the key that was probably meant.
    fn unknown(name: &str, origin: Origin) -> Self {
        let candidates = keys::all().map(|key| match origin {
            Origin::Variable(_) => key.variable(),
            _ => key.name.to_owned(),
        });
        let near = candidates
            .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        Self::Unknown { name: name.to_owned(), near: near.map(|(_, name)| name), origin }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, value, allowed, origin } => {
                write!(f, "{key} = {value} ({origin}): must be {allowed}")
            }
            Self::Unknown { name, near, origin } => {
                write!(f, "{name} ({origin}): there is no such setting")?;
                near.as_ref().map_or(Ok(()), |near| write!(f, "; did you mean {near}?"))
            }
            Self::File { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Together(why) => f.write_str(why),
        }
    }
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}
