//! From a job file to messages: pure functions of the job, of what was told of it before,
//! and of Ganeti's configuration.

mod cluster;
mod instance;
mod network;
mod tags;
mod told;

pub use told::Told;

use agents::ganeti::config_data::InstanceParts;
use agents::ganeti::job::{Input, Job, Op};
use agents::message::{EventId, EventTime, Message};
use agents::outbox::{Class, Entry};
use serde_json::Value;

use crate::shorten;

/// What the messages need beside the job itself.
pub struct Context<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// Who sends: `node1.gnt.lab/snf-ganeti-eventd`.
    pub origin: &'a str,
    /// What the configuration has for an instance; asked only when a message needs it.
    pub parts: &'a mut dyn FnMut(&str) -> Option<InstanceParts>,
}

/// The longest body of a message, in bytes. Brokers refuse longer ones than some limit (16 MiB in
/// RabbitMQ 4), and a message that is never taken would hold up all that come after it.
pub(crate) const BODY_LIMIT: usize = 8 << 20;

/// What every message about an opcode says.
struct Facts<'a> {
    job: &'a Job<'a>,
    op: &'a Op<'a>,
    input: &'a Input,
    event_time: EventTime,
    /// What was told of this opcode before.
    before: Option<&'a str>,
    cluster: &'a str,
}

impl Facts<'_> {
    fn logmsg(&self) -> Value {
        self.op.log.last.clone()
    }
}

/// The messages for what has changed in `job` since `told`, in the order of its opcodes.
pub fn events(job: &Job<'_>, told: Option<&Told>, context: &mut Context<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (index, op) in job.ops.iter().enumerate() {
        let before = told.and_then(|told| told.op(index));
        if before.is_some_and(|before| before.is(op)) {
            continue;
        }
        let input = match op.input() {
            Ok(input) => input,
            Err(error) => {
                tracing::warn!(job = job.id, op = index, %error, "opcode without usable input");
                continue;
            }
        };
        let before = before.map(told::OpMark::status);
        let facts = Facts {
            job,
            op,
            input: &input,
            event_time: job.status_time(op).unwrap_or_else(EventTime::now),
            before,
            cluster: context.cluster,
        };
        let class = class(op, before);
        for (object, message) in messages(&facts, context) {
            log(job.id, op, class, &message);
            let id = EventId::of_job(
                context.cluster,
                job.id,
                index,
                op.status.as_str(),
                op.log.length,
                &object,
            );
            let dry_run = is_dry_run(&input, &message);
            match bounded(id, class, message) {
                Ok(mut entry) => {
                    entry.dry_run = dry_run;
                    entry.cluster = Some(context.cluster.to_owned());
                    entry.origin = Some(context.origin.to_owned());
                    entries.push(entry);
                }
                Err(error) => {
                    tracing::error!(job = job.id, op = index, %error, "message cannot be written");
                }
            }
        }
    }
    entries
}

/// Returns whether the message is about an opcode that is only tried. Any opcode can be; a dispatcher that
/// is asked whether we are alive asks so.
fn is_dry_run(input: &Input, message: &Message) -> bool {
    input.get("dry_run") == &Value::Bool(true) && !matches!(message, Message::Heartbeat(_))
}

/// The messages about one opcode, each with what tells it apart from the others.
fn messages(facts: &Facts<'_>, context: &mut Context<'_>) -> Vec<(String, Message)> {
    let one = |message: Option<Message>| {
        message
            .map(|message| (String::new(), message))
            .into_iter()
            .collect()
    };
    let opcode = facts.input.opcode();
    match opcode
        .strip_prefix("OP_")
        .and_then(|name| name.split_once('_'))
    {
        Some(("INSTANCE", _)) => instance::messages(facts, context.parts),
        Some(("NETWORK", _)) => one(network::message(facts)),
        Some(("TAGS", _)) => one(tags::message(facts)),
        Some(("CLUSTER", "SET_PARAMS")) => one(Some(cluster::message(facts))),
        _ => Vec::new(),
    }
}

/// The message as an entry; one that is too long goes without what makes it so: first without the
/// operation's result and log, then without its input. What happened to what, it always says.
fn bounded(id: EventId, class: Class, mut message: Message) -> Result<Entry, serde_json::Error> {
    let entry = Entry::new(id, class, &message)?;
    let length = entry.body_bytes().len();
    if length <= BODY_LIMIT {
        return Ok(entry);
    }
    tracing::warn!(%id, length, "a message is too long: it goes without its result and log");
    if !shorten::drop_result_and_log(&mut message) {
        return Ok(entry);
    }
    let entry = Entry::new(id, class, &message)?;
    if entry.body_bytes().len() <= BODY_LIMIT {
        return Ok(entry);
    }
    shorten::drop_input(&mut message);
    Entry::new(id, class, &message)
}

/// What ended is worth a line to whoever looks at the log of a quiet day.
fn log(job: u64, op: &Op<'_>, class: Class, message: &Message) {
    let (object, operation) = match message {
        Message::Op(op) => (op.instance.as_str(), op.operation.as_str()),
        Message::Network(network) => (network.network.as_str(), network.operation.as_str()),
        Message::Cluster(cluster) => (cluster.cluster.as_str(), cluster.operation.as_str()),
        Message::Heartbeat(_) => ("", "heartbeat"),
        Message::Net(_) | Message::Progress(_) => return,
    };
    let status = op.status.as_str();
    if class == Class::Final {
        tracing::info!(job, operation, object, status, "ended");
    } else {
        tracing::debug!(job, operation, object, status, "told");
    }
}

fn class(op: &Op<'_>, before: Option<&str>) -> Class {
    if op.status.is_final() {
        Class::Final
    } else if before == Some(op.status.as_str()) {
        Class::Progress
    } else {
        Class::Status
    }
}

#[cfg(test)]
mod tests;
