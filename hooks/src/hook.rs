//! `snf-ganeti-hook`: what is done after an operation.

use std::io;

use agents::ganeti::hook_environment::{HookEnvironment, HookError, HookInstance, Phase};
use agents::ganeti::ssconf::is_same_node;
use agents::message::EventTime;
use agents::netlink;
use agents::outbox::{Class, DNS_FOLDER, DnsChange, Entry, Producer};

use crate::config::Config;
use crate::{dns, neighbours, net_status};

/// Why a hook failed. Ganeti writes the text into the job's log as a warning; the operation
/// has succeeded whatever we do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The environment is not one that Ganeti gives a hook.
    #[error("{0}")]
    Environment(#[from] HookError),
    /// This node's name cannot be told.
    #[error("cannot tell this node's name: {0}; set node_name in the configuration")]
    NodeName(io::Error),
    /// The addresses of an instance that has left are still answered for.
    #[error("cannot end the neighbour proxies of {instance}: {source}")]
    Neighbours {
        /// The instance.
        instance: String,
        /// What the kernel said.
        source: netlink::Error,
    },
    /// The message could not be left.
    #[error("cannot write the outbox {folder}: {source}")]
    Outbox {
        /// The outbox.
        folder: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Does what is to be done in this environment; nothing in a pre hook, and nothing after an
/// operation that is none of ours. What cannot be done keeps nothing else from being done.
///
/// # Errors
/// See [`RunError`]: the first. If it is the environment or the node's name, nothing was done.
pub fn run(
    config: &Config,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), RunError> {
    let environment = HookEnvironment::new(variables)?;
    if environment.phase == Phase::Pre {
        return Ok(());
    }
    let node = config.node_name().map_err(RunError::NodeName)?;
    let is_told = net_status::is_ours(&environment, &node);
    if !is_told && !environment.path.starts_with("instance-") {
        return Ok(());
    }
    let instance = environment.instance()?;
    let changes = if config.dns && is_same_node(&node, &environment.master) {
        dns::changes(&environment)?
    } else {
        Vec::new()
    };
    let ended = if config.end_proxies && neighbours::has_left(&environment, &instance, &node) {
        end_proxies(&instance)
    } else {
        Ok(())
    };
    let told = if is_told {
        tell(config, &environment, &instance, &node)
    } else {
        Ok(())
    };
    let named = leave_dns(config, &changes);
    ended
        .and(told.map_err(|source| outbox_error(config, source)))
        .and(named.map_err(|source| outbox_error(config, source)))
}

fn end_proxies(instance: &HookInstance) -> Result<(), RunError> {
    let addresses = neighbours::addresses(instance);
    neighbours::end_proxies(&addresses)
        .map(|_| ())
        .map_err(|source| RunError::Neighbours {
            instance: instance.name.clone(),
            source,
        })
}

fn tell(
    config: &Config,
    environment: &HookEnvironment,
    instance: &HookInstance,
    node: &str,
) -> io::Result<()> {
    let (id, message) = net_status::message(environment, instance, EventTime::now());
    let mut entry = Entry::new(id, Class::Final, &message)?;
    entry.cluster = Some(environment.cluster.clone());
    entry.origin = Some(format!("{node}/snf-ganeti-hook"));
    Producer::new(&config.outbox_dir)?.put(&entry)?;
    Ok(())
}

fn leave_dns(config: &Config, changes: &[DnsChange]) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    Producer::new(&config.outbox_dir)?; // makes the folder
    let mut producer = Producer::new(&config.outbox_dir.join(DNS_FOLDER))?;
    for change in changes {
        producer.put_json(change)?;
    }
    Ok(())
}

fn outbox_error(config: &Config, source: io::Error) -> RunError {
    RunError::Outbox {
        folder: config.outbox_dir.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::outbox::Outbox;
    use std::collections::HashMap;

    fn variables() -> HashMap<String, String> {
        let json = include_str!("../../agents/testdata/hook-instance-add-post.json");
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_create_leaves_one_message() {
        let scratch = tempfile::tempdir().unwrap();
        let config = Config {
            outbox_dir: scratch.path().join("outbox"),
            node_name: Some("node1.gnt.lab".to_owned()),
            end_proxies: false,
            dns: true,
        };
        run(&config, variables()).unwrap();
        let outbox = Outbox::existing(&config.outbox_dir);
        let [name] = &outbox.list().unwrap()[..] else {
            panic!()
        };
        let [entry] = &outbox.read(name).unwrap()[..] else {
            panic!()
        };
        assert_eq!(entry.class, Class::Final);
        assert_eq!(entry.cluster.as_deref(), Some("cluster.gnt.lab"));
        assert_eq!(
            entry.origin.as_deref(),
            Some("node1.gnt.lab/snf-ganeti-hook")
        );
        assert!(entry.body.get().contains("ganeti-net-status"));
    }

    #[test]
    fn a_wrong_environment_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let config = Config {
            outbox_dir: scratch.path().join("outbox"),
            node_name: Some("node1.gnt.lab".to_owned()),
            end_proxies: false,
            dns: true,
        };
        for name in variables()
            .keys()
            .filter(|name| name.starts_with("GANETI_POST_"))
        {
            let mut changed = variables();
            changed.insert(name.clone(), "\u{7}".to_owned());
            if let Err(error) = run(&config, changed) {
                assert!(error.to_string().contains(name.as_str()), "{error}");
                assert!(!config.outbox_dir.exists());
            } else {
                std::fs::remove_dir_all(&config.outbox_dir).unwrap();
            }
        }
        assert!(run(&config, HashMap::new()).is_err());
        let mut pre = variables();
        pre.insert("GANETI_HOOKS_PHASE".to_owned(), "pre".to_owned());
        run(&config, pre).unwrap();
        assert!(!config.outbox_dir.exists());
    }

    #[test]
    fn an_outbox_that_cannot_be_written_is_named() {
        let config = Config {
            outbox_dir: "/dev/null/outbox".into(),
            node_name: Some("node1.gnt.lab".to_owned()),
            end_proxies: false,
            dns: true,
        };
        let error = run(&config, variables()).unwrap_err().to_string();
        assert!(error.contains("/dev/null/outbox"), "{error}");
    }
}
