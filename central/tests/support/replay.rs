//! Lives of many servers as messages, and a model of what they come to.
#![allow(dead_code)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::broker::story;

/// A small generator of numbers: the same seed, the same numbers.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (usize::try_from(self.0 >> 33).unwrap()) % limit
    }
}

/// A server as the messages know it.
#[derive(Debug, Clone)]
pub struct Subject {
    pub id: i64,
    pub port: i64,
    pub create_job: i64,
}

/// What is to come of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// As the database has it; none: deleted.
    pub state: Option<&'static str>,
    /// The MAC address of its NIC.
    pub mac: String,
    /// The texts of its diagnostics.
    pub notes: Vec<String>,
}

/// The messages of all, in an order that keeps each server's own, and what comes of each.
pub struct Script {
    /// Topic and message.
    pub messages: Vec<(&'static str, Value)>,
    pub expected: BTreeMap<i64, Expected>,
}

/// Writes the lives of `subjects`: created, then something else up to `most` times. A tenth of the
/// messages comes twice.
pub fn script(subjects: &[Subject], most: usize, chance: &mut Chance) -> Script {
    let mut lives: Vec<std::vec::IntoIter<(&'static str, Value)>> = Vec::new();
    let mut expected = BTreeMap::new();
    let mut job = subjects
        .iter()
        .map(|subject| subject.create_job)
        .max()
        .unwrap_or(0)
        + 1;
    for subject in subjects {
        let (messages, end) = life(subject, most, &mut job, chance);
        lives.push(messages.into_iter());
        expected.insert(subject.id, end);
    }
    let mut messages = Vec::new();
    while !lives.is_empty() {
        let index = chance.below(lives.len());
        match lives[index].next() {
            Some(message) => {
                if chance.below(10) == 0 {
                    messages.push(message.clone());
                }
                messages.push(message);
            }
            None => drop(lives.swap_remove(index)),
        }
    }
    Script { messages, expected }
}

fn life(
    subject: &Subject,
    most: usize,
    job: &mut i64,
    chance: &mut Chance,
) -> (Vec<(&'static str, Value)>, Expected) {
    let instance = format!("snf-{}", subject.id);
    let mac = format!(
        "aa:00:00:{:02x}:{:02x}:{:02x}",
        (subject.id >> 16) & 0xff,
        (subject.id >> 8) & 0xff,
        subject.id & 0xff
    );
    let mut messages = Vec::new();
    let mut tell = |operation: &str, job: i64| {
        let mut told = story(operation, &instance, job, "");
        // Its log lines are events that differ in nothing that is looked at here.
        told.dedup_by(|next, before| next["status"] == before["status"]);
        for mut message in told {
            if let Some(nics) = message["instance_nics"].as_array_mut() {
                nics[0]["name"] = json!(format!("snf-nic-{}", subject.port));
                nics[0]["mac"] = json!(mac);
            }
            messages.push(("op", message));
        }
    };
    tell("OP_INSTANCE_CREATE", subject.create_job);
    let mut state = Some("STARTED");
    for _ in 0..chance.below(most + 1) {
        *job += 1;
        let (operation, after) = match (chance.below(8), state) {
            (0, _) => ("OP_INSTANCE_REMOVE", None),
            (_, Some("STARTED")) if chance.below(2) == 0 => {
                ("OP_INSTANCE_SHUTDOWN", Some("STOPPED"))
            }
            (_, Some("STARTED")) => ("OP_INSTANCE_REBOOT", Some("STARTED")),
            _ => ("OP_INSTANCE_STARTUP", Some("STARTED")),
        };
        tell(operation, *job);
        state = after;
        if state.is_none() {
            break;
        }
    }
    // Somewhere a line to read, which must be there once.
    let note = format!("a warning for {instance}");
    let warning = json!({"type": "image-warning", "event_time": [subject.id, 0],
        "instance": instance, "messages": note});
    let place = chance.below(messages.len());
    messages.insert(place, ("progress", warning));
    let expected = Expected {
        state,
        mac,
        notes: vec![note],
    };
    (messages, expected)
}
