//! The command lines of both programs.

use std::path::PathBuf;

use clap::Parser;

use crate::config;

/// A Ganeti hook: tells an instance's NICs, and ends its neighbour proxies on a node it left.
///
/// After an instance was created, started, rebooted or modified it leaves a message about its
/// NICs in the outbox, from where snf-ganeti-eventd publishes it. On the node that an instance
/// has left (stop, remove, migrate, failover) it ends the neighbour proxies of its routed NICs.
///
/// Ganeti runs it, without arguments, through links in the folders instance-*-post.d of
/// /etc/ganeti/hooks (add, start, reboot, modify, stop, remove, migrate and failover);
/// what it does it takes from the GANETI_* variables. It never waits for the network.
///
/// Exit status: 0 done, or nothing to do; 1 failed, with one line that says why (Ganeti logs
/// it, and the operation stays successful); 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "snf-ganeti-hook", version)]
pub struct HookArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Reads the JSON objects that an image deployment writes, from standard input, and leaves
/// them as messages in the outbox, from where snf-ganeti-eventd publishes them.
///
/// At most five messages a second leave, and always the last; an image-error leaves at once and is
/// never dropped. What is no message is written to standard error as it came. SIGTERM, SIGHUP,
/// SIGINT and SIGQUIT end the program after what has been told already is left.
///
/// Exit status: 0 the input ended, or a signal came; 1 the input could not be read, or an error or
/// the last message not be left; 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "snf-progress-monitor", version)]
pub struct ProgressArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// The instance that the image is for.
    #[arg(value_parser = instance_name)]
    pub instance: String,
}

fn instance_name(name: &str) -> Result<String, String> {
    let good = !name.is_empty()
        && name.len() <= 255
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'));
    if good {
        Ok(name.to_owned())
    } else {
        Err("not the name of an instance".to_owned())
    }
}
