//! The man pages of the configuration files, made from the commented default files, so that
//! there is one text on each key.
//!
//! In a default file, comments stand before what they are about; a key whose default applies
//! is commented out itself (`#key = value`).

use std::path::Path;

use anyhow::Result;
use roff::{Roff, bold, roman};

use crate::{man, text};

/// A configuration file.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFile {
    /// Its name in `packaging/defaults`, and of its page.
    pub name: &'static str,
    /// Where it is installed.
    pub path: &'static str,
    /// The page's one line.
    pub about: &'static str,
    /// The pages that it belongs to.
    pub see: &'static str,
}

/// All of them.
pub const ALL: &[ConfigFile] = &[
    ConfigFile {
        name: "eventd.toml",
        path: "/etc/snf-agents/eventd.toml",
        about: "configuration of the publisher of Ganeti's events",
        see: "snf-ganeti-eventd(8), snf-agents-outbox(5)",
    },
    ConfigFile {
        name: "hooks.toml",
        path: "/etc/snf-agents/hooks.toml",
        about: "configuration of the Ganeti hooks",
        see: "snf-ganeti-hook(8), snf-progress-monitor(1), snf-agents-outbox(5)",
    },
    ConfigFile {
        name: "ifup.toml",
        path: "/etc/snf-agents/ifup.toml",
        about: "configuration of what sets up the guests' interfaces",
        see: "snf-ifup(8), nfdhcpd-binding(5)",
    },
    ConfigFile {
        name: "nfdhcpd.toml",
        path: "/etc/nfdhcpd/nfdhcpd.toml",
        about: "configuration of the DHCP responder for guests",
        see: "nfdhcpd(8), nfdhcpd-binding(5)",
    },
    ConfigFile {
        name: "central.toml",
        path: "/etc/snf-central/central.toml",
        about: "configuration of the API and dispatcher for Ganeti",
        see: "snf-central(8)",
    },
];

/// Writes the page of a file.
///
/// # Errors
/// The default file is not there, or the page cannot be written.
pub fn write(file: &ConfigFile, packaging: &Path, out: &Path) -> Result<()> {
    let defaults = text::read(&packaging.join("defaults").join(file.name))?;
    let mut page = Vec::new();
    render(file, &defaults).to_writer(&mut page)?;
    text::write(&man::path(out, &format!("{}.5", file.name))?, &page)
}

/// What stands in a default file.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    /// Comments that are about nothing in particular: each is a paragraph.
    Prose(Vec<String>),
    /// `[table]`, and what is said of it.
    Table(String, Vec<String>),
    /// Lines `key = value` that stand together, and what is said of them.
    Keys(Vec<String>, Vec<String>),
}

fn render(file: &ConfigFile, defaults: &str) -> Roff {
    let mut page = man::title(file.name, "5");
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{} - {}", file.name, file.about))]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman("The file is ".to_owned()), bold(file.path), roman(", in TOML. A key that is not known is refused, with its line; a key that is not there has its default.")]);
    let mut keys = false;
    for item in items(defaults) {
        if !keys && !matches!(item, Item::Prose(_)) {
            keys = true;
            page.control("SH", ["KEYS"]);
            page.text([roman(
                "Values are the defaults, or examples where there is none.",
            )]);
        }
        match item {
            Item::Prose(text) => man::paragraphs(&text.join("\n\n"), &mut page),
            Item::Table(name, text) => {
                page.control("SS", [name.as_str()]);
                man::paragraphs(&text.join("\n\n"), &mut page);
            }
            Item::Keys(lines, text) => {
                for (index, line) in lines.into_iter().enumerate() {
                    page.control(if index == 0 { "TP" } else { "TQ" }, []);
                    page.text([bold(line)]);
                }
                for (index, paragraph) in text.iter().enumerate() {
                    if index > 0 {
                        page.control("IP", []);
                    }
                    page.text([roman(paragraph.as_str())]);
                }
            }
        }
    }
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([bold(file.path)]);
    page.text([roman(
        "Installed with every key commented; kept on upgrade.",
    )]);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(file.see)]);
    page
}

fn items(defaults: &str) -> Vec<Item> {
    let mut items = Vec::new();
    // Paragraphs of the comment that stands right before.
    let mut comment: Vec<String> = Vec::new();
    let mut paragraph = String::new();
    // Whether the line before has a key.
    let mut together = false;
    let mut lines = defaults.lines();
    while let Some(line) = lines.next() {
        let bare = line
            .strip_prefix('#')
            .map_or(line, str::trim_start)
            .trim_end();
        if is_table(bare) || is_key(bare) {
            flush(&mut paragraph, &mut comment);
            let about = std::mem::take(&mut comment);
            if is_table(bare) {
                items.push(Item::Table(bare.to_owned(), about));
                together = false;
                continue;
            }
            let mut value = bare.to_owned();
            while open_brackets(&value) {
                let Some(next) = lines.next() else { break };
                value.push(' ');
                value.push_str(next.trim_start_matches('#').trim());
            }
            match items.last_mut() {
                Some(Item::Keys(lines, _)) if together && about.is_empty() => lines.push(value),
                _ => items.push(Item::Keys(vec![value], about)),
            }
            together = true;
            continue;
        } else if line.trim().is_empty() {
            flush(&mut paragraph, &mut comment);
            if !comment.is_empty() {
                items.push(Item::Prose(std::mem::take(&mut comment)));
            }
        } else if bare.is_empty() {
            flush(&mut paragraph, &mut comment);
        } else {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(bare);
        }
        together = false;
    }
    flush(&mut paragraph, &mut comment);
    if !comment.is_empty() {
        items.push(Item::Prose(comment));
    }
    items
}

fn flush(paragraph: &mut String, comment: &mut Vec<String>) {
    if !paragraph.is_empty() {
        comment.push(std::mem::take(paragraph));
    }
}

fn is_table(line: &str) -> bool {
    line.starts_with('[') && line.ends_with(']') && !line.contains([' ', '=', '"'])
}

fn is_key(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, value)| {
        let key = key.trim_end();
        !key.is_empty()
            && !value.trim().is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c))
    })
}

/// Whether an array goes on in the next line.
fn open_brackets(value: &str) -> bool {
    value.matches('[').count() > value.matches(']').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# The sample's configuration.

# Where things are.
#
# It must be there.
#folder = \"/var\"
# How many.
count = 3
#    count = 4

#list = [
#  1,
#]

# What is far.
[far]
# Always.
#x = 1
";

    #[test]
    fn a_comment_belongs_to_what_follows_it() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(
            items(SAMPLE),
            [
                Item::Prose(words(&["The sample's configuration."])),
                Item::Keys(
                    words(&["folder = \"/var\""]),
                    words(&["Where things are.", "It must be there."])
                ),
                Item::Keys(words(&["count = 3", "count = 4"]), words(&["How many."])),
                Item::Keys(words(&["list = [ 1, ]"]), Vec::new()),
                Item::Table("[far]".into(), words(&["What is far."])),
                Item::Keys(words(&["x = 1"]), words(&["Always."])),
            ]
        );
    }

    #[test]
    fn every_key_of_every_default_file_is_on_its_page() {
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in ALL {
            let defaults = text::read(&packaging.join("defaults").join(file.name)).unwrap();
            let found = items(&defaults);
            let page = render(file, &defaults).to_roff();
            let mut explained = 0;
            for item in &found {
                let Item::Keys(lines, about) = item else {
                    continue;
                };
                explained += usize::from(!about.is_empty());
                for line in lines {
                    let name = line.split('=').next().unwrap().trim().replace('-', "\\-");
                    assert!(page.contains(&name), "{}: {name}", file.name);
                }
            }
            assert!(explained > 0, "{}: no key is explained", file.name);
        }
    }
}
