//! Real clients, unmodified, from PyPI: what people drive a cloud with must work.
//!
//! They are installed once, into `target/clients`; a machine without PyPI skips by name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::process;
use support::{Central, TOKEN};

/// How long an installation and a script may take on a busy machine.
const INSTALL: Duration = Duration::from_secs(600);
const SCRIPT: Duration = Duration::from_secs(600);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The Python that has the clients; the reason if there is none.
fn python() -> Result<PathBuf, String> {
    let folder = harness::source_root().join("target/clients");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Several tests may come at once: the first one installs.
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let wanted = scripts().join("requirements.txt");
    let python = folder.join("venv/bin/python");
    let done = folder.join("installed");
    let text = std::fs::read_to_string(&wanted).unwrap();
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == text) {
        return Ok(python);
    }
    let run = |command: &mut Command| {
        process::check(command, INSTALL)
            .map(drop)
            .map_err(|error| format!("{error:#}"))
    };
    run(Command::new("python3")
        .arg("-m")
        .arg("venv")
        .arg(folder.join("venv")))?;
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(&wanted))?;
    std::fs::write(&done, text).unwrap();
    Ok(python)
}

/// The Python 2.7 that kamaki needs and the folder it is in; the reason if there is none.
fn kamaki() -> Result<(PathBuf, PathBuf), String> {
    let python = PathBuf::from("python2.7");
    let works = Command::new(&python)
        .args(["-m", "pip", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        return Err("no Python 2.7 with pip, which kamaki needs".to_owned());
    }
    let folder = harness::source_root().join("target/clients/kamaki");
    if !folder.join("bin/kamaki").exists() {
        let mut install = Command::new(&python);
        install
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["kamaki==0.16", "--target"])
            .arg(&folder);
        process::check(&mut install, INSTALL).map_err(|error| format!("{error:#}"))?;
    }
    Ok((python, folder))
}

/// Runs a client's script against a central whose jobs succeed.
async fn drive(test: &str, script: &str) {
    let python = match tokio::task::spawn_blocking(python).await.unwrap() {
        Ok(python) => python,
        Err(reason) => return harness::skip(test, &reason),
    };
    run(script, Command::new(python)).await;
}

async fn run(script: &str, mut command: Command) {
    let central = Central::start().await;
    central.rapi.succeed();
    command
        .arg(scripts().join(script))
        .args([&central.base, TOKEN])
        .env("SCRATCH", central.folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = tokio::task::spawn_blocking(move || process::run(&mut command, SCRIPT))
        .await
        .unwrap()
        .unwrap();
    let failed = output.stdout.contains("FAILED") || !output.status.success();
    assert!(!failed, "{}{}", output.stdout, output.stderr);
    println!("{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_libcloud() {
    drive("apache_libcloud", "libcloud_script.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_novaclient() {
    drive("python_novaclient", "novaclient_script.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstacksdk() {
    drive("openstacksdk", "openstacksdk_script.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstack_command() {
    drive("openstack_command", "openstack_cli_script.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kamaki_on_the_cyclades_mount() {
    let test = "kamaki_on_the_cyclades_mount";
    let (python, folder) = match tokio::task::spawn_blocking(kamaki).await.unwrap() {
        Ok(found) => found,
        Err(reason) => return harness::skip(test, &reason),
    };
    let mut command = Command::new(python);
    command.env("PYTHONPATH", folder);
    run("kamaki_script.py", command).await;
}
