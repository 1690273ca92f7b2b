//! `check`: is everything there that `run` needs?

use std::fmt::Display;
use std::fs;
use std::path::Path;

use agents::ganeti::ssconf::Ssconf;
use agents::outbox::Producer;
use agents::regular_file::{self, Links};

use crate::config::Config;
use crate::cursor::Cursor;
use crate::job::BODY_LIMIT;
use crate::mastership::Role;
use crate::publish::{Broker, Host, Link, connect};

/// The routing key of what is tried: like that of an operation, for a prefix that is none.
const CHECK_KEY: &str = "ganeti.-.event.op";

/// Looks at everything and prints a line about each; returns whether all is well.
///
/// # Errors
/// No runtime can be started to connect with.
pub fn check(config: &Config) -> std::io::Result<bool> {
    let mut well = true;
    let mut say = |what: &str, result: Result<String, String>| match result {
        Ok(found) => println!("ok      {what}: {found}"),
        Err(fault) => {
            well = false;
            println!("FAILED  {what}: {fault}");
        }
    };
    let node = config.node_name().map_err(|error| error.to_string());
    say("node name", node.clone());
    let node = node.unwrap_or_default();
    say("mastership", mastership(config, &node));
    say("queue", queue(&config.queue_dir));
    say("configuration of Ganeti", readable(&config.config_data));
    say("outbox", outbox(&config.outbox_dir));
    say("cursor", cursor(&config.cursor_file));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let broker = Broker::new(&config.amqp, &node);
    for host in config
        .amqp
        .hosts
        .iter()
        .filter_map(|uri| Host::parse(uri).ok())
    {
        let result = runtime.block_on(async {
            let link = connect(&broker, &host).await.map_err(text)?;
            let permission = may_publish(&link).await;
            link.close().await;
            permission.map(|found| format!("exchange {:?} is there, {found}", broker.exchange))
        });
        say(&format!("broker {host}"), result);
    }
    Ok(well)
}

/// Asks the broker whether messages may be published, as the daemon does, but without a message
/// for anybody.
async fn may_publish(link: &Link) -> Result<String, String> {
    let refused = |refusal| format!("messages may not be published: {refusal}");
    link.try_permission(CHECK_KEY, 0).await.map_err(refused)?;
    match link.try_permission(CHECK_KEY, BODY_LIMIT).await {
        Ok(()) => Ok("messages may be published (tried with one that is refused later)".to_owned()),
        Err(refusal) => match refusal.size_limit() {
            Some(limit) => Ok(format!(
                "messages may be published (tried with one that is refused later) of at most \
                 {limit} bytes: longer ones go without result and log"
            )),
            None => Err(refused(refusal)),
        },
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn mastership(config: &Config, node: &str) -> Result<String, String> {
    match Role::read(&Ssconf::new(&config.ssconf_dir), node) {
        Role::Master { cluster } => Ok(format!("this node is the master of {cluster}")),
        Role::Other { master } => Ok(format!("the master is {master}: only the outbox is sent")),
        Role::Unknown { reason } => Err(reason),
    }
}

fn queue(folder: &Path) -> Result<String, String> {
    let jobs = fs::read_dir(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(Result::ok)
        .filter(|file| {
            agents::ganeti::job::id_of_name(file.file_name().as_encoded_bytes()).is_some()
        });
    let mut count = 0usize;
    for file in jobs {
        regular_file::open(&file.path(), Links::Refuse)
            .map_err(|error| format!("{}: {error}", file.path().display()))?;
        count = count.saturating_add(1);
    }
    Ok(format!("{}: {count} jobs, all readable", folder.display()))
}

fn readable(path: &Path) -> Result<String, String> {
    regular_file::open(path, Links::Follow)
        .map(|_| path.display().to_string())
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn outbox(folder: &Path) -> Result<String, String> {
    let outbox = agents::outbox::Outbox::open(folder)
        .and_then(|outbox| Producer::new(folder).map(|_| outbox));
    outbox
        .and_then(|outbox| outbox.usage())
        .map(|usage| {
            let folder = folder.display();
            format!(
                "{folder}: {} files, {} bytes wait",
                usage.files, usage.bytes
            )
        })
        .map_err(|error| format!("{}: {error}", folder.display()))
}

fn cursor(path: &Path) -> Result<String, String> {
    match Cursor::load(path).map_err(text)? {
        None => Ok(format!("{}: none yet", path.display())),
        Some(cursor) => Ok(format!(
            "{}: {} jobs open, newest ended {}",
            path.display(),
            cursor.open.len(),
            cursor.done.highest().unwrap_or(0)
        )),
    }
}
