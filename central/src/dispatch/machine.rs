//! What an event of a job means for its server: pure, without a database.

use agents::message::InstanceHvparams;

use crate::model::entity::server;
use crate::model::register::{self, JobStatus, Order};

pub const BUILD: &str = "BUILD";
pub const STARTED: &str = "STARTED";
pub const STOPPED: &str = "STOPPED";
pub const ERROR: &str = "ERROR";

/// An event about an operation on an instance.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub order: Order,
    pub status: JobStatus,
    /// `OP_INSTANCE_CREATE` …
    pub opcode: &'a str,
    /// It brought the instance's NICs along.
    pub has_nics: bool,
    /// It is about labels.
    pub has_labels: bool,
    /// It brought new processors or memory along.
    pub has_shape: bool,
    /// The cluster was asked and does not have the instance (any more): without that no removal is
    /// believed.
    pub gone: bool,
}

/// What is to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The event is the newest one: show it.
    pub job: bool,
    /// The new state.
    pub state: Option<&'static str>,
    /// What the user waited for is over.
    pub task_over: bool,
    /// The NICs are to be made what the event says.
    pub nics: bool,
    /// The flavor is to be made what the event says.
    pub shape: bool,
    /// Labels came or went: each has its own order.
    pub labels: bool,
    /// The creation has failed.
    pub failed: bool,
    /// The server is no more.
    pub removed: bool,
}

impl Change {
    /// Writes down in `server` what the event says of it. What else is to be changed (NICs, the
    /// flavor, what a removed server had) is the caller's task.
    pub fn write(&self, server: &mut server::Model, event: &Event<'_>, status: &str) {
        let order = event.order;
        if self.job {
            server.job_id = order.job;
            server.job_rank = order.rank;
            server.job_time = order.time;
            server.job_opcode = Some(event.opcode.to_owned());
            server.job_status = Some(status.to_owned());
        }
        if self.task_over {
            server.task = None;
            server.task_intent = None;
            server.task_job = None;
        }
        if let Some(state) = self.state {
            server.state = state.to_owned();
            server.state_job = order.job;
            server.state_rank = order.rank;
            server.state_time = order.time;
        }
        if self.nics {
            server.nics_job = order.job;
            server.nics_rank = order.rank;
            server.nics_time = order.time;
        }
        if self.shape {
            server.shape_job = order.job;
            server.shape_rank = order.rank;
            server.shape_time = order.time;
        }
    }
}

/// Whether an instance with these parameters boots from a rescue image.
pub fn rescues(params: &InstanceHvparams) -> bool {
    params.boot_order.as_deref() == Some("cdrom")
        && params
            .cdrom_image_path
            .as_deref()
            .is_some_and(|path| !path.is_empty())
}

/// Compares an event with what is known of its server.
pub fn decide(server: &server::Model, event: &Event<'_>) -> Change {
    if server.deleted_at.is_some() {
        return Change::default();
    }
    let success = event.status == JobStatus::Success;
    let fails = matches!(event.status, JobStatus::Error | JobStatus::Canceled);
    let mut change = Change {
        job: event.order > register::job(server),
        task_over: event.status.is_final()
            && server.task_job.is_some_and(|job| job <= event.order.job),
        ..Change::default()
    };
    if event.opcode == "OP_INSTANCE_REMOVE" && event.status.is_final() && event.gone {
        // Whatever comes after this says nothing any more, so the record ends with it.
        change.job = true;
        change.removed = true;
        change.task_over = true;
        return change;
    }
    if event.order > register::state(server) {
        change.state = match event.opcode {
            "OP_INSTANCE_CREATE" if fails => Some(ERROR),
            "OP_INSTANCE_CREATE" | "OP_INSTANCE_STARTUP" | "OP_INSTANCE_REBOOT" if success => {
                Some(STARTED)
            }
            "OP_INSTANCE_SHUTDOWN" if success => Some(STOPPED),
            _ => None,
        };
        change.failed = change.state == Some(ERROR);
    }
    change.nics = event.has_nics && event.status.is_final() && event.order > register::nics(server);
    change.labels = event.has_labels && event.status.is_final();
    change.shape = event.has_shape && success && event.order > register::shape(server);
    change
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use agents::message::OpMessage;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    /// The messages of a recorded life: created, stopped, started, rebooted, removed.
    fn recorded(name: &str) -> Vec<OpMessage> {
        static ALL: LazyLock<Value> = LazyLock::new(|| {
            serde_json::from_str(include_str!("../../tests/data/messages.json")).unwrap()
        });
        Vec::deserialize(&ALL[name]).unwrap()
    }

    fn new_server() -> server::Model {
        server::Model {
            id: 1,
            name: String::new(),
            user_id: String::new(),
            project_id: String::new(),
            flavor_id: 1,
            image_id: String::new(),
            backend_id: 1,
            key_name: None,
            state: BUILD.to_owned(),
            progress: 0,
            task: Some("BUILDING".to_owned()),
            task_intent: Some(1),
            task_job: Some(7),
            suspended: false,
            rescue: false,
            created_at: 0,
            updated_at: 0,
            deleted_at: None,
            job_id: 0,
            job_rank: 0,
            job_time: 0,
            job_opcode: None,
            job_status: None,
            job_log: None,
            state_job: 0,
            state_rank: 0,
            state_time: 0,
            nics_job: 0,
            nics_rank: 0,
            nics_time: 0,
            shape_job: 0,
            shape_rank: 0,
            shape_time: 0,
        }
    }

    fn apply(server: &mut server::Model, message: &OpMessage, gone: bool) -> Change {
        let status = JobStatus::parse(&message.status).unwrap();
        let event = Event {
            order: Order::new(message.job_id, status, message.event_time),
            status,
            opcode: &message.operation,
            has_nics: message.instance_nics.is_some(),
            has_labels: false,
            has_shape: false,
            gone,
        };
        let change = decide(server, &event);
        change.write(server, &event, &message.status);
        if change.removed {
            server.deleted_at = Some(1);
        }
        change
    }

    fn after(messages: &[OpMessage]) -> server::Model {
        let mut server = new_server();
        for message in messages {
            apply(&mut server, message, true);
        }
        server
    }

    /// The states that the recorded life goes through, in order.
    #[test]
    fn a_recorded_life_goes_through_its_states() {
        let mut server = new_server();
        let mut states = vec![server.state.clone()];
        for message in recorded("life") {
            apply(&mut server, &message, true);
            if states.last() != Some(&server.state) {
                states.push(server.state.clone());
            }
        }
        assert_eq!(states, [BUILD, STARTED, STOPPED, STARTED]);
        assert!(server.deleted_at.is_some());
        assert_eq!(server.task, None);
    }

    #[test]
    fn a_failed_creation_is_an_error() {
        let server = after(&recorded("failed"));
        assert_eq!(server.state, ERROR);
        assert_eq!(server.task, None);
        assert_eq!(server.job_status.as_deref(), Some("error"));
    }

    #[test]
    fn a_removal_removes_only_what_is_gone() {
        for status in ["success", "error", "canceled"] {
            let mut message = recorded("life").pop().unwrap();
            message.status = status.to_owned();
            let mut server = after(&recorded("life")[..12]);
            assert!(!apply(&mut server, &message, false).removed, "{status}");
            assert!(apply(&mut server, &message, true).removed, "{status}");
        }
    }

    /// The clock of a node that is ahead of the master's cannot be ahead of a job, since
    /// progress has no order; and within a job the rank comes before the clock.
    #[test]
    fn a_clock_cannot_hide_the_end_of_a_job() {
        let mut life = recorded("life");
        life.truncate(12);
        let later = life[11].event_time.seconds() + 3600;
        life[10].event_time = agents::message::EventTime::new(later, 0).unwrap();
        assert_eq!(after(&life).state, STARTED);
    }

    #[test]
    fn an_error_of_a_later_job_does_not_hide_an_earlier_success() {
        let mut life = recorded("life");
        let mut error = life[15].clone();
        life.truncate(12);
        let success = life.pop().unwrap();
        error.status = "error".to_owned();
        life.push(error);
        life.push(success);
        assert_eq!(after(&life).state, STARTED);
    }

    /// What a deleted server was doing before is nobody's concern: only its end is compared.
    fn shown(server: server::Model) -> server::Model {
        if server.deleted_at.is_none() {
            return server;
        }
        server::Model {
            deleted_at: server.deleted_at,
            task: server.task,
            job_id: server.job_id,
            job_rank: server.job_rank,
            job_time: server.job_time,
            job_opcode: server.job_opcode,
            job_status: server.job_status,
            ..new_server()
        }
    }

    /// What every order of `messages` ends in, with any repetitions anywhere.
    ///
    /// Orders that have come to the same go on alike, so it is enough to follow what can be known
    /// once each subset of the messages has come: every message leads on from there, and one that
    /// has come already leads to the same subset.
    fn ends_of_every_order(messages: &[OpMessage]) -> Vec<server::Model> {
        let all = (1_usize << messages.len()) - 1;
        let mut known = vec![Vec::new(); all + 1];
        known[0].push(new_server());
        for come in 0..=all {
            let mut servers = std::mem::take(&mut known[come]);
            let mut next = 0;
            while let Some(server) = servers.get(next).cloned() {
                next += 1;
                for (number, message) in messages.iter().enumerate() {
                    let mut server: server::Model = server.clone();
                    apply(&mut server, message, true);
                    let server = shown(server);
                    let now = come | 1 << number;
                    let list = if now == come {
                        &mut servers
                    } else {
                        &mut known[now]
                    };
                    if !list.contains(&server) {
                        list.push(server);
                    }
                }
            }
            known[come] = servers;
        }
        known.pop().unwrap()
    }

    /// The most messages whose every order is gone through: there are 16! of them.
    const EVERY_ORDER_OF: usize = 16;

    /// Late, repeated, reordered: every job of the recorded histories, and every row of jobs that
    /// is short enough.
    #[test]
    fn every_order_of_recorded_jobs_ends_the_same() {
        let mut rows = 0;
        for name in ["life", "failed"] {
            let history = recorded(name);
            let jobs: Vec<&[OpMessage]> = history
                .chunk_by(|one, next| one.job_id == next.job_id)
                .collect();
            for first in 0..jobs.len() {
                let mut row: Vec<OpMessage> = Vec::new();
                for job in &jobs[first..] {
                    row.extend_from_slice(job);
                    if row.len() > EVERY_ORDER_OF {
                        break;
                    }
                    rows += 1;
                    assert_eq!(ends_of_every_order(&row), [shown(after(&row))], "{row:?}");
                }
            }
        }
        assert_eq!(rows, 13);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// The same of the whole life, in orders by chance.
        #[test]
        fn a_life_in_any_order_with_repetitions_ends_the_same(
            removed in any::<bool>(),
            indexes in Just((0..28_usize).collect::<Vec<_>>()).prop_shuffle(),
            repeated in prop::collection::vec((0..28_usize, 0..56_usize), 0..28),
        ) {
            let mut life = recorded("life");
            if !removed {
                life.truncate(24);
            }
            let mut order: Vec<usize> = indexes;
            for (index, place) in repeated {
                order.insert(place.min(order.len()), index);
            }
            let shuffled: Vec<OpMessage> = order
                .into_iter()
                .filter_map(|index| life.get(index).cloned())
                .collect();
            prop_assert_eq!(shown(after(&shuffled)), shown(after(&life)));
        }
    }
}
