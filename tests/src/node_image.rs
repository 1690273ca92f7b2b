//! A node in a guest: the guest's image with programs, their libraries, and more modules of
//! its kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::Image;
use crate::process;
use crate::target_dir;

const LIMIT: Duration = Duration::from_secs(120);

/// Builds the image in `folder`. `programs` are found by name on the usual path, or at their
/// own; they are stripped, and lie in `/usr/local/bin` of the node. Modules are loaded in their
/// order, each after those that it depends on.
///
/// # Errors
/// A program or a module is not there, or the image cannot be built.
pub fn build(folder: &Path, programs: &[&str], modules: &[&str]) -> Result<Image> {
    let image = Image::build()?;
    let root = folder.join("root");
    let bin = root.join("usr/local/bin");
    fs::create_dir_all(&bin)?;
    for program in programs {
        let script = format!("readlink -f \"$(command -v {program})\"");
        let found = process::check(
            Command::new("sh")
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .args(["-eu", "-c", &script]),
            LIMIT,
        )
        .with_context(|| format!("{program} is not there"))?;
        let path = PathBuf::from(found.trim());
        let name = Path::new(program).file_name().context("not a program")?;
        let mut strip = Command::new("strip");
        process::check(strip.arg("-o").arg(bin.join(name)).arg(&path), LIMIT)?;
        add_libraries(&root, &path)?;
    }
    add_modules(&root, modules)?;
    // The kernel takes several archives one after the other.
    let initrd = folder.join("initrd.img");
    let script = format!(
        "cd {} && find . | cpio -o -H newc --quiet | gzip -1 | cat {} - > {}",
        root.display(),
        image.initrd.display(),
        initrd.display()
    );
    process::check(Command::new("sh").args(["-eu", "-c", &script]), LIMIT)?;
    Ok(Image {
        kernel: image.kernel,
        initrd,
    })
}

/// Copies the libraries of a program to their own paths below `root`.
fn add_libraries(root: &Path, program: &Path) -> Result<()> {
    let listed = process::check(Command::new("ldd").arg(program), LIMIT)?;
    for library in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("a library has a folder")?)?;
        fs::copy(library, target)?;
    }
    Ok(())
}

fn add_modules(root: &Path, modules: &[&str]) -> Result<()> {
    let kernel = target_dir().join("guest/kernel/root");
    let mut versions = fs::read_dir(kernel.join("lib/modules"))?;
    let version = versions.next().context("the kernel has no modules")??;
    let folder = root.join("modules");
    fs::create_dir_all(&folder)?;
    let mut known: Vec<String> = Vec::new();
    for module in modules {
        let mut modprobe = Command::new("modprobe");
        modprobe
            .arg("-d")
            .arg(&kernel)
            .arg("-S")
            .arg(version.file_name());
        let list = process::check(modprobe.args(["--show-depends", module]), LIMIT)?;
        for line in list.lines() {
            let Some(path) = line.strip_prefix("insmod ").map(str::trim) else {
                continue;
            };
            if known.iter().any(|module| module == path) {
                continue;
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            // The guest's own come first.
            fs::copy(path, folder.join(format!("{}-{name}", 200 + known.len())))?;
            known.push(path.to_owned());
        }
    }
    Ok(())
}
