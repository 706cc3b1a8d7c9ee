//! Settings for people, for scripts, and as a page of the documentation.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Effective;
use super::keys::{self, Kind};
use super::values::shown;

/// A file that sets what is in force, with where each value comes from. `documented` says what
/// every key is for.
pub(crate) fn toml(effective: &[Effective], documented: bool) -> String {
    let mut out = String::new();
    let mut section = "";
    for Effective { key, text, origin } in effective {
        if key.section() != section {
            section = key.section();
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}[{section}]");
        }
        if documented {
            let _ = writeln!(out, "# {}: {}", key.about, key.allowed);
            let _ = writeln!(out, "# --{}, {}", key.flag, key.variable());
        }
        let name = key.name.split_once('.').map_or(key.name, |(_, name)| name);
        let _ = match text {
            None => writeln!(out, "# {name} is not set"),
            Some(text) if key.kind == Kind::Text => {
                let quoted = Value::String(shown(text));
                writeln!(out, "{name} = {quoted} # {origin}")
            }
            Some(text) => writeln!(out, "{name} = {text} # {origin}"),
        };
    }
    out
}

/// `{"server.listen": {"value": …, "origin": …}, …}`; the value is null where nothing is set.
pub(crate) fn json(effective: &[Effective]) -> Value {
    let entries = effective.iter().map(|Effective { key, text, origin }| {
        let value = text.as_ref().map_or(Value::Null, |text| match key.kind {
            Kind::Text => Value::String(shown(text)),
            Kind::Number | Kind::Switch => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
            }
        });
        let mut entry = Map::new();
        entry.insert("value".to_owned(), value);
        entry.insert("origin".to_owned(), Value::String(origin.to_string()));
        (key.name.to_owned(), Value::Object(entry))
    });
    Value::Object(entries.collect())
}

/// Every key, as a page.
pub(crate) fn markdown() -> String {
    let mut out = PREAMBLE.to_owned();
    let mut section = "";
    for key in keys::all() {
        if key.section() != section {
            section = key.section();
            let _ = write!(out, "\n## {section}\n\n");
            out.push_str("| key | flag, variable | what it is for | value | default |\n");
            out.push_str("|---|---|---|---|---|\n");
        }
        let default = key.default.map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
        let _ = writeln!(
            out,
            "| `{}` | `--{}`, `{}` | {} | {} | {default} |",
            key.name,
            key.flag,
            key.variable(),
            key.about,
            key.allowed,
        );
    }
    out
}

const PREAMBLE: &str = "# Settings of `sleuth serve`

This page is printed by

```sh
sleuth config docs
```

and a test holds the two together. A flag wins over the environment, the environment over the file, the file over
the default. The file is TOML, named by `--config FILE` or `SLEUTH_CONFIG`; none is read unless it is named. Everything
is checked before anything starts, and every fault is told at once with the value, what is allowed and where it came
from. A key or a `SLEUTH_` variable that is not here is refused, with the key that was probably meant; variables that
Kubernetes sets for a service called `sleuth` are left alone.

```sh
sleuth config check sleuth.toml
sleuth config print --config sleuth.toml --workers 2
sleuth config print --documented
```

`check` also reads the certificates and credentials that the file names. `print` tells what is in force and where each
value comes from, as a TOML file, or with `--format json`. No key takes a secret itself: keys and credentials are
files. A user or password in an address is printed as `[redacted]`.
";
