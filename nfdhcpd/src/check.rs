//! `nfdhcpd check`: the configuration was read; now the bindings.

use anyhow::{Context, bail};

use crate::config::Config;
use crate::folder::Folder;

/// Reads all bindings and prints what is wrong with them, one line each.
///
/// # Errors
/// The folder cannot be read, or a binding is wrong.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let folder = Folder::watch(&config.bindings)
        .with_context(|| format!("folder of bindings {}", config.bindings.display()))?;
    let interfaces = folder.list()?;
    let mut wrong = 0_usize;
    for interface in &interfaces {
        if let Err(error) = agents::binding::load(&folder.file(interface)) {
            println!("{error}");
            wrong += 1;
        }
    }
    println!(
        "configuration good, {} bindings, {wrong} of them wrong",
        interfaces.len()
    );
    if wrong > 0 {
        bail!("{wrong} bindings are wrong");
    }
    Ok(())
}
