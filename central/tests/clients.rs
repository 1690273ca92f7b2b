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

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::postgres::Postgres;
use harness::scratch::Scratch;
use harness::{process, python};
use support::rapi::FakeRapi;
use support::{Central, TOKEN};

/// How long a script may take on a busy machine.
const SCRIPT: Duration = Duration::from_secs(600);

/// What clients can ask for beyond what is offered by default.
const MORE: &str = "[parameters]\nurl = 'http://central.example.org'\n\
    [images]\nsources = ['https://images.example.org/']\n";

/// Who looks at clusters.
const ADMINISTRATOR: &str = r#"
[[user]]
name = "root"
password = "toor-toor"
projects = ["wonderland"]
admin = true
"#;

/// Where the rows are.
#[derive(Clone, Copy)]
enum Base {
    Sqlite,
    Postgresql,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
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
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "kamaki==0.16", "--target"])
            .arg(&folder);
        process::check(&mut install, python::INSTALL).map_err(|error| format!("{error:#}"))?;
    }
    Ok((python, folder))
}

/// Runs a client's script against a central whose jobs succeed.
async fn drive(test: &str, script: &str, base: Base) {
    let requirements = scripts().join("requirements.txt");
    let installed = tokio::task::spawn_blocking(move || python::venv("venv", &requirements));
    let python = match installed.await.unwrap() {
        Ok(python) => python,
        Err(error) => return harness::skip(test, &format!("{error:#}")),
    };
    run(script, Command::new(python), base).await;
}

async fn run(script: &str, mut command: Command, base: Base) {
    let scratch = Scratch::new("central-clients").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server: Option<Postgres>;
    let database = match base {
        Base::Sqlite => {
            server = None;
            format!("sqlite://{}/central.db", folder.path().display())
        }
        Base::Postgresql => {
            let started = support::postgres(&scratch);
            let uri = started.uri();
            server = Some(started);
            uri
        }
    };
    let central = Central::on(FakeRapi::start().await, folder, &database, MORE).await;
    let seed = central.folder.path().join("administrator.toml");
    std::fs::write(&seed, ADMINISTRATOR).unwrap();
    central::admin::seed::run(&central.config, &seed)
        .await
        .unwrap();
    central.rapi.succeed();
    command
        .arg(scripts().join(script))
        .args([&central.base, TOKEN])
        .env("SCRATCH", central.folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Or it writes into the home folder.
        .env("NOVACLIENT_UUID_CACHE_DIR", central.folder.path());
    let output = tokio::task::spawn_blocking(move || process::run(&mut command, SCRIPT))
        .await
        .unwrap()
        .unwrap();
    let failed = output.stdout.contains("FAILED") || !output.status.success();
    assert!(!failed, "{}{}", output.stdout, output.stderr);
    println!("{}", output.stdout);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_libcloud() {
    drive("apache_libcloud", "libcloud_script.py", Base::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_libcloud_on_postgresql() {
    let test = "apache_libcloud_on_postgresql";
    drive(test, "libcloud_script.py", Base::Postgresql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_novaclient() {
    drive("python_novaclient", "novaclient_script.py", Base::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_novaclient_on_postgresql() {
    let test = "python_novaclient_on_postgresql";
    drive(test, "novaclient_script.py", Base::Postgresql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstacksdk() {
    drive("openstacksdk", "openstacksdk_script.py", Base::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstacksdk_on_postgresql() {
    let test = "openstacksdk_on_postgresql";
    drive(test, "openstacksdk_script.py", Base::Postgresql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstack_command() {
    drive("openstack_command", "openstack_cli_script.py", Base::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openstack_command_on_postgresql() {
    let test = "openstack_command_on_postgresql";
    drive(test, "openstack_cli_script.py", Base::Postgresql).await;
}

async fn drive_kamaki(test: &str, base: Base) {
    let (python, folder) = match tokio::task::spawn_blocking(kamaki).await.unwrap() {
        Ok(found) => found,
        Err(reason) => return harness::skip(test, &reason),
    };
    let mut command = Command::new(python);
    command.env("PYTHONPATH", folder);
    run("kamaki_script.py", command, base).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kamaki_on_the_cyclades_mount() {
    drive_kamaki("kamaki_on_the_cyclades_mount", Base::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kamaki_on_the_cyclades_mount_on_postgresql() {
    let test = "kamaki_on_the_cyclades_mount_on_postgresql";
    drive_kamaki(test, Base::Postgresql).await;
}
