//! What several of the agents share, and nothing else.
//!
//! Each module is one of the contracts between the parts (see the README), or the plumbing
//! that every daemon needs:
//!
//! - [`ganeti`]: Ganeti's own formats: job files, ssconf, config.data, environments, names, tags
//! - [`message`]: the AMQP messages and their routing keys
//! - [`outbox`]: the spool directory in which a message waits for the broker
//! - [`binding`]: the file by which nfdhcpd learns of an interface
//! - [`addr`]: MAC addresses, EUI-64, prefixes
//! - [`netlink`]: blocking netlink: links, routes, rules, nftables batches
//! - [`json_object`]: what is a JSON object and nothing else
//! - [`regular_file`]: files in folders that others can write to
//! - [`service`]: configuration, logging, readiness, metrics

pub mod addr;
pub mod binding;
pub mod ganeti;
pub mod json_object;
pub mod message;
pub mod netlink;
pub mod outbox;
pub mod regular_file;
pub mod service;
