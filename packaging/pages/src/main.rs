//! `package-pages`: writes it all into a folder, laid out as below `/`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pages::{completion, config_page, copyright, man, program};

/// Writes man pages, completions and copyright files for the packages.
#[derive(Parser)]
struct Arguments {
    /// The source tree.
    #[arg(long, value_name = "FOLDER")]
    tree: PathBuf,
    /// The folder to write to; what is in it already is replaced where the names agree.
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match work(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("package-pages: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: &Arguments) -> anyhow::Result<()> {
    let packaging = arguments.tree.join("packaging");
    for program in program::all() {
        man::write(&program, &packaging, &arguments.out)?;
        completion::write(&program, &arguments.out)?;
    }
    man::write_by_hand(&packaging, &arguments.out)?;
    for file in config_page::ALL {
        config_page::write(file, &packaging, &arguments.out)?;
    }
    copyright::write_all(&arguments.tree, &arguments.out)
}
