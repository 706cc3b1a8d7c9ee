//! Every key: how it is called, what it takes, what it is for.

mod correct;
mod edge;
mod observe;
mod route;
mod work;

use super::Settings;

/// A setting.
pub(crate) struct Key {
    /// Section and name, as in the file: `tls.certificate`.
    pub(crate) name: &'static str,
    /// Of the command line, without dashes.
    pub(crate) flag: &'static str,
    pub(crate) kind: Kind,
    /// What is taken if nobody says anything; `None` for nothing.
    pub(crate) default: Option<&'static str>,
    /// What may be said.
    pub(crate) allowed: &'static str,
    /// What it is for.
    pub(crate) about: &'static str,
    /// Writes it; `None` where the text is not allowed.
    pub(crate) set: fn(&mut Settings, &str) -> Option<()>,
}

/// How a value is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Switch,
}

// === impl Key ===

impl Key {
    /// The environment variable: `SLEUTH_TLS_CERTIFICATE`, and `SLEUTH_LOG` for the log filter.
    pub(crate) fn variable(&self) -> String {
        match self.name {
            "log.filter" => "SLEUTH_LOG".to_owned(),
            name => format!("SLEUTH_{}", name.replace('.', "_").to_ascii_uppercase()),
        }
    }

    /// Whether `sleuth serve` goes by it.
    pub(crate) fn is_of_serve(&self) -> bool {
        self.section() != "router"
    }

    /// Whether `sleuth route` goes by it.
    pub(crate) fn is_of_route(&self) -> bool {
        match self.section() {
            "model" | "engine" | "corrector" => false,
            "admission" => self.name == "admission.image_store_mib",
            _ => self.name != "metrics.reward_baseline",
        }
    }

    pub(crate) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every key, by section, in the order in which they are shown.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    edge::EDGE
        .iter()
        .chain(observe::OBSERVE)
        .chain(work::WORK)
        .chain(correct::CORRECT)
        .chain(route::ROUTE)
}

pub(super) fn by_name(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// Writes a value that was read.
fn put<T>(slot: &mut T, value: Option<T>) -> Option<()> {
    *slot = value?;
    Some(())
}

/// Writes a value that may also be missing.
fn put_some<T>(slot: &mut Option<T>, value: Option<T>) -> Option<()> {
    *slot = Some(value?);
    Some(())
}

const fn key(
    name: &'static str,
    flag: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    allowed: &'static str,
    about: &'static str,
    set: fn(&mut Settings, &str) -> Option<()>,
) -> Key {
    Key { name, flag, kind, default, allowed, about, set }
}
