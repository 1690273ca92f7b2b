//! Completions for bash, zsh and fish.

use std::path::Path;

use anyhow::Result;
use clap_complete::{Shell, generate};

use crate::program::Program;

/// Writes a program's completions where each shell looks for those of packages.
///
/// # Errors
/// A file cannot be written.
pub fn write(program: &Program, out: &Path) -> Result<()> {
    let name = program.name();
    for (shell, file) in [
        (
            Shell::Bash,
            format!("usr/share/bash-completion/completions/{name}"),
        ),
        (
            Shell::Zsh,
            format!("usr/share/zsh/vendor-completions/_{name}"),
        ),
        (
            Shell::Fish,
            format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        ),
    ] {
        let mut text = Vec::new();
        generate(shell, &mut program.command.clone(), name, &mut text);
        crate::text::write(&out.join(file), &text)?;
    }
    Ok(())
}
