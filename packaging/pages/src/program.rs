//! The programs that have a command line.

use clap::{Command, CommandFactory};

/// A program with a command line.
#[derive(Debug)]
pub struct Program {
    /// Its command line, as `--help` shows it.
    pub command: Command,
    /// The section of its man page.
    pub section: &'static str,
}

impl Program {
    fn new(name: &'static str, section: &'static str, command: Command) -> Self {
        Self {
            // The name by which it is installed, whatever the definition says.
            command: command
                .name(name)
                .bin_name(name)
                .disable_help_subcommand(true),
            section,
        }
    }

    /// The name by which it is installed.
    pub fn name(&self) -> &str {
        self.command.get_name()
    }
}

/// All of them.
pub fn all() -> Vec<Program> {
    vec![
        Program::new("snf-ganeti-eventd", "8", eventd::args::Args::command()),
        Program::new(
            "snf-ganeti-hook",
            "8",
            hooks::arguments::HookArguments::command(),
        ),
        Program::new(
            "snf-progress-monitor",
            "1",
            hooks::arguments::ProgressArguments::command(),
        ),
        Program::new("snf-ifup", "8", ifup::arguments::Arguments::command()),
        Program::new("nfdhcpd", "8", nfdhcpd::arguments::Arguments::command()),
        Program::new("snf-central", "8", central::arguments::Arguments::command()),
    ]
}
