//! Checks the house: floors, forbidden edges, inherited lints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// `floors.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    floors: BTreeMap<String, u8>,
    beside: Beside,
    #[serde(default)]
    edge: Vec<Edge>,
    #[serde(default)]
    source: Vec<SourceRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Beside {
    crates: BTreeSet<String>,
}

/// Outside crates that only some may depend on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edge {
    starts: Vec<String>,
    only: BTreeSet<String>,
    reason: String,
}

/// A text that may not stand in a crate's `src/`, but for `only`, or at all in `in`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceRule {
    text: String,
    #[serde(default)]
    only: BTreeSet<String>,
    #[serde(default)]
    r#in: BTreeSet<String>,
    reason: String,
}

/// A workspace member.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// Fails with every breach of the rules.
pub(crate) fn check(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join("xtask/floors.toml")).context("read floors.toml")?;
    let rules: Rules = toml::from_str(&text).context("parse floors.toml")?;
    let packages = members(root)?;
    let mut breaches = Vec::new();
    for package in &packages {
        breaches.extend(rules.floor_breaches(package));
        breaches.extend(rules.edge_breaches(package));
        breaches.extend(lint_breach(package)?);
        breaches.extend(rules.source_breaches(package)?);
    }
    if breaches.is_empty() {
        return Ok(format!("floors: {} crates keep the rules", packages.len()));
    }
    bail!("{}", breaches.join("\n"))
}

fn members(root: &Path) -> Result<Vec<Package>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("parse metadata")?;
    Ok(metadata.packages)
}

// === impl Rules ===

impl Rules {
    fn floor_breaches(&self, package: &Package) -> Vec<String> {
        let name = &package.name;
        if self.beside.crates.contains(name) {
            return Vec::new();
        }
        let Some(floor) = self.floors.get(name) else {
            return vec![format!("{name} has no floor in xtask/floors.toml")];
        };
        let mut breaches = Vec::new();
        for dependency in &package.dependencies {
            let other = &dependency.name;
            if self.beside.crates.contains(other) {
                breaches.push(format!("{name} depends on {other}, which stands beside the house"));
            }
            match self.floors.get(other) {
                Some(lower) if lower >= floor && other != name => breaches.push(format!(
                    "{name} (floor {floor}) depends on {other} (floor {lower}), not a lower one"
                )),
                _ => {}
            }
        }
        breaches
    }

    fn edge_breaches(&self, package: &Package) -> Vec<String> {
        let mut breaches = Vec::new();
        for edge in self.edge.iter().filter(|e| !e.only.contains(&package.name)) {
            for dependency in &package.dependencies {
                if edge.starts.iter().any(|s| dependency.name.starts_with(s.as_str())) {
                    breaches.push(format!(
                        "{} may not depend on {}: {}",
                        package.name, dependency.name, edge.reason
                    ));
                }
            }
        }
        breaches
    }

    fn source_breaches(&self, package: &Package) -> Result<Vec<String>> {
        let folder = package.manifest_path.with_file_name("src");
        let rules: Vec<_> = self.source.iter().filter(|r| r.covers(&package.name)).collect();
        let mut breaches = Vec::new();
        for path in rust_files(&folder)? {
            if path.file_name().is_some_and(|n| n == "mod.rs") {
                breaches.push(format!("{}: no mod.rs", path.display()));
            }
            let text = fs::read_to_string(&path)?;
            for rule in &rules {
                if let Some(line) = text.lines().position(|l| has(l, &rule.text)) {
                    let at = format!("{}:{}", path.display(), line + 1);
                    breaches.push(format!("{at}: `{}`: {}", rule.text, rule.reason));
                }
            }
        }
        Ok(breaches)
    }
}

// === impl SourceRule ===

impl SourceRule {
    fn covers(&self, name: &str) -> bool {
        if self.r#in.is_empty() { !self.only.contains(name) } else { self.r#in.contains(name) }
    }
}

/// Comments may name what code may not.
fn has(line: &str, text: &str) -> bool {
    !line.trim_start().starts_with("//") && line.contains(text)
}

fn lint_breach(package: &Package) -> Result<Option<String>> {
    let text = fs::read_to_string(&package.manifest_path)?;
    let manifest: toml::Table = toml::from_str(&text)?;
    let inherits = manifest
        .get("lints")
        .and_then(|l| l.get("workspace"))
        .and_then(toml::Value::as_bool)
        .unwrap_or(false);
    Ok((!inherits).then(|| format!("{} does not inherit the workspace's lints", package.name)))
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // A member without `src/` has only tests.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [floors]
            low = 0
            side = 1
            high = 1
            [beside]
            crates = ["tool"]
            [[edge]]
            starts = ["tonic"]
            only = ["high"]
            reason = "edge"
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies =
            dependencies.iter().map(|&d| Dependency { name: d.to_owned() }).collect();
        Package { name: name.to_owned(), manifest_path: PathBuf::new(), dependencies }
    }

    #[test]
    fn the_workspace_keeps_the_rules() {
        check(&crate::workspace_root().unwrap()).unwrap();
    }

    #[test]
    fn a_lower_floor_may_be_used_and_no_other() {
        let rules = rules();
        assert_eq!(rules.floor_breaches(&package("high", &["low", "bytes"])).len(), 0);
        assert_eq!(rules.floor_breaches(&package("high", &["side"])).len(), 1);
        assert_eq!(rules.floor_breaches(&package("low", &["high", "tool"])).len(), 2);
        assert_eq!(rules.floor_breaches(&package("new", &[])).len(), 1);
    }

    #[test]
    fn a_forbidden_edge_is_found_by_its_start() {
        let rules = rules();
        assert_eq!(rules.edge_breaches(&package("low", &["tonic-health"])).len(), 1);
        assert_eq!(rules.edge_breaches(&package("high", &["tonic-health"])).len(), 0);
    }

    #[test]
    fn comments_may_name_what_code_may_not() {
        assert!(has("use std::env;", "std::env"));
        assert!(!has("    // std::env is read in the CLI", "std::env"));
    }
}
