//! Checks what the dependencies are: licences, banned and doubled crates, where they come from.
//!
//! Reads `deny.toml` in cargo-deny's format, as far as it says something about these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, ParseMode};

/// `deny.toml`; what is not here belongs to cargo-deny alone.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Entry>,
    skip: Vec<Entry>,
}

/// A crate, or `crate@version`.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for what lies in the workspace.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    req: String,
    /// Given for what lies in the workspace.
    path: Option<String>,
}

/// Fails with every breach of the rules.
pub(crate) fn check(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join("deny.toml")).context("read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("parse deny.toml")?;
    let packages = packages(root)?;
    let breaches = rules.breaches(&packages);
    if breaches.is_empty() {
        return Ok(format!("deny: {} packages keep the rules", packages.len()));
    }
    bail!("{}", breaches.join("\n"))
}

/// All packages of the lock file, for all platforms.
fn packages(root: &Path) -> Result<Vec<Package>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
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
    fn breaches(&self, packages: &[Package]) -> Vec<String> {
        let mut breaches = Vec::new();
        for package in packages {
            breaches.extend(self.licence_breach(package));
            breaches.extend(self.source_breach(package));
            breaches.extend(self.ban_breach(package));
            breaches.extend(wildcards(package));
        }
        breaches.extend(self.doubles(packages));
        breaches
    }

    fn licence_breach(&self, package: &Package) -> Option<String> {
        // With its exception, where it has one: each pair is allowed by itself.
        let allowed = |req: &LicenseReq| self.licenses.allow.contains(&req.to_string());
        let Some(text) = &package.license else {
            return Some(format!("{package} names no licence"));
        };
        match Expression::parse_mode(text, ParseMode::LAX) {
            Ok(expression) if expression.evaluate(allowed) => None,
            Ok(_) => Some(format!("{package} has licence {text}, which deny.toml does not allow")),
            Err(_) => Some(format!("{package} has licence {text}, which is no SPDX expression")),
        }
    }

    fn source_breach(&self, package: &Package) -> Option<String> {
        let source = package.source.as_deref()?;
        let registry = source.strip_prefix("registry+").or_else(|| source.strip_prefix("sparse+"));
        let known = registry.is_some_and(|url| self.sources.allow_registry.contains(url));
        (!known).then(|| format!("{package} comes from {source}"))
    }

    fn ban_breach(&self, package: &Package) -> Option<String> {
        let ban = self.bans.deny.iter().find(|ban| ban.name == package.name)?;
        Some(format!("{package} is banned: {}", ban.reason))
    }

    /// Crates of more than one version, and versions that are skipped for nothing.
    fn doubles(&self, packages: &[Package]) -> Vec<String> {
        let there: BTreeSet<_> = packages.iter().map(ToString::to_string).collect();
        let skipped: BTreeSet<_> = self.bans.skip.iter().map(|skip| skip.name.as_str()).collect();
        let idle = skipped.iter().filter(|skip| !there.contains(**skip));
        let mut breaches: Vec<_> =
            idle.map(|skip| format!("{skip} is skipped in deny.toml and not there")).collect();
        let mut versions = BTreeMap::<&str, Vec<&str>>::new();
        for package in packages {
            if !skipped.contains(package.to_string().as_str()) {
                versions.entry(&package.name).or_default().push(&package.version);
            }
        }
        let doubled = versions.iter().filter(|(_, versions)| versions.len() > 1);
        breaches.extend(
            doubled.map(|(name, versions)| format!("{name} is there in {}", versions.join(", "))),
        );
        breaches
    }
}

fn wildcards(package: &Package) -> Vec<String> {
    let ours = package.source.is_none();
    let open = package.dependencies.iter().filter(|d| ours && d.req == "*" && d.path.is_none());
    open.map(|d| format!("{package} takes any version of {}", d.name)).collect()
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0\"]\n\
             [bans]\ndeny = [{ crate = \"openssl\", reason = \"no\" }]\n\
             skip = [{ crate = \"old@1.0.0\", reason = \"x\" }]\n\
             [sources]\nallow-registry = [\"https://registry\"]\n",
        )
        .unwrap()
    }

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.map(str::to_owned),
            source: Some("registry+https://registry".to_owned()),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn licences_are_read_as_expressions() {
        let judge = |text| rules().licence_breach(&package("a", "1.0.0", text)).is_none();
        let both = "Apache-2.0 WITH LLVM-exception OR Apache-2.0";
        for good in [both, "MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "MIT AND Apache-2.0"] {
            assert!(judge(Some(good)), "{good}");
        }
        for bad in [
            "Apache-2.0 WITH LLVM-exception",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "a licence",
            "",
        ] {
            assert!(!judge(Some(bad)), "{bad}");
        }
        assert!(!judge(None));
    }

    #[test]
    fn every_kind_of_breach_is_found() {
        let mut packages = vec![
            package("old", "1.0.0", Some("MIT")),
            package("old", "2.0.0", Some("MIT")),
            package("twice", "1.0.0", Some("MIT")),
            package("twice", "2.0.0", Some("MIT")),
            package("openssl", "0.1.0", Some("MIT")),
        ];
        packages[4].source = Some("git+https://elsewhere".to_owned());
        let breaches = rules().breaches(&packages);
        let expected =
            ["comes from git+https://elsewhere", "is banned: no", "twice is there in 1.0.0, 2.0.0"];
        assert_eq!(breaches.len(), expected.len(), "{breaches:?}");
        for (breach, says) in breaches.iter().zip(expected) {
            assert!(breach.contains(says), "{breach}");
        }
        let idle = rules().breaches(&packages[1..2]);
        assert_eq!(idle, ["old@1.0.0 is skipped in deny.toml and not there"]);
    }
}
