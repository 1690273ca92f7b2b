//! The copyright file of each package: our licence, and those of the crates that are linked in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{spdx, text};

/// Our crates with programs, which are the packages' names too.
const PACKAGES: [&str; 5] = [
    "nfdhcpd",
    "snf-central",
    "snf-ganeti-eventd",
    "snf-ganeti-hooks",
    "snf-ifup",
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Crate {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// None: it is linked; else `build` or `dev`.
    kind: Option<String>,
}

/// Writes `copyright/PACKAGE.copyright` for each package.
///
/// # Errors
/// cargo fails, or a crate says nothing of its licence.
pub fn write_all(tree: &Path, out: &Path) -> Result<()> {
    let metadata = metadata(tree)?;
    for package in PACKAGES {
        let linked = linked(&metadata, package)?;
        let file = render(&linked).with_context(|| format!("copyright file of {package}"))?;
        let path = out.join("copyright").join(format!("{package}.copyright"));
        text::write(&path, file.as_bytes())?;
    }
    Ok(())
}

fn metadata(tree: &Path) -> Result<Metadata> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
        ])
        .arg(platform)
        .current_dir(tree)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("what cargo metadata says")
}

/// The crates of others that are linked into a package's programs, in the order of their names.
fn linked<'a>(metadata: &'a Metadata, package: &str) -> Result<Vec<&'a Crate>> {
    let crates: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|one| (one.id.as_str(), one))
        .collect();
    let nodes: BTreeMap<_, _> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let ours = |one: &&Crate| one.name == package && one.source.is_none();
    let root = metadata
        .packages
        .iter()
        .find(ours)
        .with_context(|| format!("no crate {package}"))?;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![root.id.as_str()];
    while let Some(id) = waiting.pop() {
        // A macro's code runs in the compiler; it is not linked.
        let compiles = crates.get(id).is_some_and(|one| {
            one.targets
                .iter()
                .any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
        });
        if compiles || !seen.insert(id) {
            continue;
        }
        for dependency in nodes.get(id).into_iter().flat_map(|node| &node.deps) {
            if dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()) {
                waiting.push(dependency.pkg.as_str());
            }
        }
    }
    let others = seen
        .iter()
        .filter_map(|id| crates.get(id))
        .filter(|one| one.source.is_some());
    let mut others: Vec<_> = others.copied().collect();
    others.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(others)
}

fn render(linked: &[&Crate]) -> Result<String> {
    let mut file = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: snf-agents
Comment: The programs are linked from our sources and from crates of others, which are
 listed as vendor/NAME-VERSION. Of the licences that a crate offers, the one named here is
 the one that is made use of.

Files: *
Copyright: 2026 The snf-agents authors
License: Apache-2.0
"
    .to_owned();
    let mut texts = Texts::default();
    for one in linked {
        let expression = one.license.as_deref();
        let expression = expression.with_context(|| format!("{} names no licence", one.name))?;
        let mut names = Vec::new();
        let mut holders = BTreeSet::new();
        for licence in spdx::choose(expression) {
            let found = licence_file(one, &licence)?;
            holders.extend(found.iter().flat_map(|text| copyright_lines(text)));
            names.push(texts.name(&licence, found.as_deref()));
        }
        if holders.is_empty() {
            holders.extend(one.authors.iter().cloned());
        }
        if holders.is_empty() {
            holders.insert(format!("The authors of {}", one.name));
        }
        let holders: Vec<_> = holders.into_iter().collect();
        write!(
            file,
            "\nFiles: vendor/{}-{}/*\nCopyright: {}\nLicense: {}\n",
            one.name,
            one.version,
            holders.join("\n "),
            names.join(" and "),
        )?;
    }
    texts.name("Apache-2.0", None);
    texts.render(&mut file)?;
    Ok(file)
}

/// The licences' texts, each once, however many crates have it.
#[derive(Debug, Default)]
struct Texts {
    /// By name: the text, without its copyright lines.
    texts: BTreeMap<String, Option<String>>,
}

impl Texts {
    /// The name under which the text is found at the end of the file.
    fn name(&mut self, licence: &str, text: Option<&str>) -> String {
        let base = licence.replace(" WITH ", "-");
        if in_debian(licence) {
            self.texts.insert(base.clone(), None);
            return base;
        }
        let body = text.map(body);
        for number in 1.. {
            let name = if number == 1 {
                base.clone()
            } else {
                format!("{base}~{number}")
            };
            match self.texts.get(&name) {
                Some(other) if squeeze(other.as_deref()) == squeeze(body.as_deref()) => {
                    return name;
                }
                Some(_) => {}
                None => {
                    self.texts.insert(name.clone(), body);
                    return name;
                }
            }
        }
        base
    }

    fn render(&self, file: &mut String) -> Result<()> {
        for (name, text) in &self.texts {
            writeln!(file, "\nLicense: {name}")?;
            match text {
                None if in_debian(name) => writeln!(
                    file,
                    " On Debian systems, the text of this licence is in\n /usr/share/common-licenses/{name}."
                )?,
                None => writeln!(
                    file,
                    " The crate has no text of it; see https://spdx.org/licenses/{name}."
                )?,
                Some(text) => {
                    for line in text.lines() {
                        let line = line.trim_end();
                        writeln!(file, " {}", if line.is_empty() { "." } else { line })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether `/usr/share/common-licenses` has it.
fn in_debian(licence: &str) -> bool {
    matches!(licence, "Apache-2.0" | "CC0-1.0" | "MPL-2.0")
}

/// A licence's text in a crate's folder.
fn licence_file(one: &Crate, licence: &str) -> Result<Option<String>> {
    if in_debian(licence) {
        return Ok(None);
    }
    let folder = one
        .manifest_path
        .parent()
        .context("a manifest without a folder")?;
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names: Vec<String> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| {
            let name = name.to_ascii_lowercase();
            ["license", "licence", "copying", "unlicense"]
                .iter()
                .any(|word| name.starts_with(word))
                && folder.join(&name).is_dir().eq(&false)
        })
        .collect();
    let word = licence
        .split(['-', ' '])
        .next()
        .unwrap_or(licence)
        .to_ascii_lowercase();
    // The file that has the licence's name before the one that has none, and that before others.
    names.sort_by_key(|name| {
        let name = name.to_ascii_lowercase();
        (!name.contains(&word), name.len(), name)
    });
    let Some(name) = names.first() else {
        return Ok(None);
    };
    Ok(Some(text::read(&folder.join(name))?))
}

fn is_copyright_line(line: &str) -> bool {
    let line = line
        .trim_start_matches(['/', '*', '#', ' '])
        .to_ascii_lowercase();
    line.starts_with("copyright ")
        && line.contains(|c: char| c.is_ascii_digit() || c == '(' || c == '©')
        && !line.contains("notice")
}

fn copyright_lines(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| is_copyright_line(line));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// A licence's text without the lines on who holds the copyright, and without the whole Apache
/// licence that some carry along: Debian has it.
fn body(text: &str) -> String {
    let mut lines = Vec::new();
    let mut all = text.lines();
    while let Some(line) = all.next() {
        if line.trim() == "Apache License" {
            lines.push("The Apache License 2.0: /usr/share/common-licenses/Apache-2.0.");
            all.by_ref()
                .find(|line| line.trim() == "END OF TERMS AND CONDITIONS");
        } else if !is_copyright_line(line) {
            lines.push(line);
        }
    }
    lines.join("\n").trim_matches('\n').to_owned()
}

/// For comparing: how lines are broken does not matter.
fn squeeze(text: Option<&str>) -> Option<String> {
    text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_two_crates_share_stands_once() {
        let mut texts = Texts::default();
        let first = texts.name("MIT", Some("Copyright (c) 2020 A\n\nDo what\nyou like."));
        let second = texts.name("MIT", Some("Copyright (c) 2021 B\n\nDo what you like."));
        let third = texts.name("MIT", Some("Do it differently."));
        assert_eq!(
            (first.as_str(), second.as_str(), third.as_str()),
            ("MIT", "MIT", "MIT~2")
        );
        let mut file = String::new();
        texts.render(&mut file).unwrap();
        assert_eq!(file.matches("Do what").count(), 1, "{file}");
    }

    #[test]
    fn the_apache_licence_is_named_and_not_copied() {
        let text = "A.\n  Apache License\n Version 2.0\nTERMS\nEND OF TERMS AND CONDITIONS\nB.";
        let body = body(text);
        assert!(
            body.starts_with("A.\nThe Apache License 2.0: /usr/share"),
            "{body}"
        );
        assert!(body.ends_with("\nB.") && !body.contains("TERMS"), "{body}");
    }

    #[test]
    fn holders_are_found_and_the_notice_clause_is_not_one() {
        let text = "Copyright (c) 2020 A\nThe above copyright notice\ncopyright notice 2 (x)\n";
        assert_eq!(
            Vec::from_iter(copyright_lines(text)),
            ["Copyright (c) 2020 A"]
        );
    }
}
