//! The programs' man pages: from the command line definition, then what is written by hand.
//!
//! `packaging/man/NAME.SECTION.more` has FILES, EXAMPLES and the like of the page that is
//! generated; `packaging/man/NAME.SECTION` is a page that is written by hand as a whole.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Arg, Command};
use clap_mangen::Man;
use roff::{Inline, Roff, bold, italic, roman};

use crate::program::Program;
use crate::text;

/// What the header of every page says.
pub(crate) const MANUAL: &str = "Ganeti node agents";

/// Writes a program's page.
///
/// # Errors
/// Its written part is not there, or the page cannot be written.
pub fn write(program: &Program, packaging: &Path, out: &Path) -> Result<()> {
    let file = format!("{}.{}", program.name(), program.section);
    let mut page = generated(program)?;
    page.extend(text::read(&packaging.join("man").join(format!("{file}.more")))?.into_bytes());
    text::write(&path(out, &file)?, &page)
}

/// Copies the pages that are written by hand as a whole.
///
/// # Errors
/// One has a name without a section, or cannot be copied.
pub fn write_by_hand(packaging: &Path, out: &Path) -> Result<()> {
    let folder = packaging.join("man");
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    for file in files {
        let name = file?.file_name();
        let name = name.to_str().context("a name that is not UTF-8")?;
        if !name.ends_with(".more") {
            text::write(
                &path(out, name)?,
                text::read(&folder.join(name))?.as_bytes(),
            )?;
        }
    }
    Ok(())
}

/// Where the page `NAME.SECTION` goes.
pub(crate) fn path(out: &Path, file: &str) -> Result<std::path::PathBuf> {
    match file.rsplit_once('.') {
        Some((_, section)) if section.len() == 1 => {
            Ok(out.join(format!("usr/share/man/man{section}")).join(file))
        }
        _ => bail!("{file}: not NAME.SECTION"),
    }
}

/// The first line of a page: its name, section, source and manual.
pub(crate) fn title(name: &str, section: &str) -> Roff {
    let mut title = Roff::new();
    let version = concat!("snf-agents ", env!("CARGO_PKG_VERSION"));
    title.control("TH", [name, section, "", version, MANUAL]);
    title
}

fn generated(program: &Program) -> Result<Vec<u8>> {
    let mut command = program.command.clone();
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    title(program.name(), program.section).to_writer(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    let (about, statuses) = split_exit_status(&command);
    let mut description = Roff::new();
    description.control("SH", ["DESCRIPTION"]);
    paragraphs(&about, &mut description);
    description.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        let mut commands = Roff::new();
        commands.control("SH", ["COMMANDS"]);
        for subcommand in command.get_subcommands() {
            describe(subcommand, &mut commands);
        }
        commands.to_writer(&mut page)?;
    }
    let mut end = Roff::new();
    exit_status(&statuses, &mut end);
    end.to_writer(&mut page)?;
    Ok(page)
}

/// A command and those below it, each with its options.
fn describe(command: &Command, page: &mut Roff) {
    if command.is_hide_set() {
        return;
    }
    let mut usage = command.clone();
    let usage = usage.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    if command.get_subcommands().next().is_none() {
        page.control("SS", [usage.as_str()]);
        let about = command.get_long_about().or(command.get_about());
        paragraphs(&about.map(ToString::to_string).unwrap_or_default(), page);
        for argument in command.get_arguments() {
            // Those of the program are in its own section.
            if !argument.is_hide_set() && !argument.is_global_set() && argument.get_id() != "help" {
                option(argument, page);
            }
        }
    }
    for subcommand in command.get_subcommands() {
        describe(subcommand, page);
    }
}

fn option(argument: &Arg, page: &mut Roff) {
    page.control("TP", []);
    page.text(term(argument));
    let help = argument.get_long_help().or(argument.get_help());
    let mut help = help.map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        help.push_str(&format!(" [default: {}]", defaults.join(" ")));
    }
    let mut first = true;
    for paragraph in help.split("\n\n") {
        if !first {
            page.control("IP", []);
        }
        first = false;
        page.text([roman(one_line(paragraph))]);
    }
}

/// `-o, --option VALUE`, or `VALUE` alone.
fn term(argument: &Arg) -> Vec<Inline> {
    let mut term = Vec::new();
    let names = [
        argument.get_short().map(|short| format!("-{short}")),
        argument.get_long().map(|long| format!("--{long}")),
    ];
    for name in names.into_iter().flatten() {
        if !term.is_empty() {
            term.push(roman(", "));
        }
        term.push(bold(name));
    }
    if argument.get_action().takes_values() {
        let values = argument.get_value_names().unwrap_or_default();
        for value in values {
            if !term.is_empty() {
                term.push(roman(" "));
            }
            term.push(italic(value.to_string()));
        }
    }
    term
}

/// What a command says of itself, and of its exit status: the paragraph that begins with
/// "Exit status:", before or after the options.
fn split_exit_status(command: &Command) -> (String, String) {
    let about = command.get_long_about().or(command.get_about());
    let after = command.get_after_long_help().or(command.get_after_help());
    let texts = [about, after];
    let texts = texts.into_iter().flatten().map(ToString::to_string);
    let text = texts.collect::<Vec<_>>().join("\n\n");
    let (statuses, rest): (Vec<_>, Vec<_>) = text
        .split("\n\n")
        .partition(|paragraph| paragraph.starts_with("Exit status:"));
    let statuses: Vec<_> = statuses
        .iter()
        .filter_map(|text| text.strip_prefix("Exit status:"))
        .collect();
    (rest.join("\n\n"), statuses.join(";"))
}

/// `0 done; 2 wrong usage.` as a list.
fn exit_status(statuses: &str, page: &mut Roff) {
    let statuses = one_line(statuses);
    if statuses.is_empty() {
        return;
    }
    page.control("SH", ["EXIT STATUS"]);
    for status in statuses.trim_end_matches('.').split(';') {
        let (number, meaning) = status.trim().split_once(' ').unwrap_or((status, ""));
        page.control("TP", []);
        page.text([bold(number)]);
        page.text([roman(format!("{meaning}."))]);
    }
}

/// A text whose paragraphs are apart by empty lines.
pub(crate) fn paragraphs(text: &str, page: &mut Roff) {
    for paragraph in text.split("\n\n").filter(|text| !text.trim().is_empty()) {
        page.control("PP", []);
        page.text([roman(one_line(paragraph))]);
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::value_parser;

    fn sample() -> Program {
        let check = Command::new("check").about("Says what is wrong.").arg(
            Arg::new("depth")
                .long("depth")
                .value_name("N")
                .default_value("3")
                .value_parser(value_parser!(u8))
                .help("How far."),
        );
        let hidden = Command::new("secret").hide(true);
        let command = Command::new("sample")
            .about("A sample.")
            .long_about("A sample.\n\nExit status: 0 done; 2 wrong\nusage.\n\nIt is one.")
            .subcommand(check)
            .subcommand(hidden);
        Program {
            command,
            section: "8",
        }
    }

    #[test]
    fn a_page_has_the_commands_with_their_options_and_defaults() {
        let page = String::from_utf8(generated(&sample()).unwrap()).unwrap();
        for expected in [
            "check",
            "Says what is wrong.",
            "depth",
            "How far. [default: 3]",
        ] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        assert!(!page.contains("secret"), "{page}");
    }

    #[test]
    fn exit_statuses_at_the_end_of_the_help_are_a_section() {
        let page = String::from_utf8(generated(&sample()).unwrap()).unwrap();
        let (before, section) = page.split_once(".SH \"EXIT STATUS\"").unwrap();
        assert!(section.contains("wrong usage."), "{section}");
        assert!(
            before.contains("It is one.") && !before.contains("wrong usage"),
            "{before}"
        );
    }

    #[test]
    fn a_page_without_a_section_is_refused() {
        assert!(path(Path::new("/x"), "nfdhcpd").is_err());
        let path = path(Path::new("/x"), "eventd.toml.5").unwrap();
        assert_eq!(path, Path::new("/x/usr/share/man/man5/eventd.toml.5"));
    }
}
