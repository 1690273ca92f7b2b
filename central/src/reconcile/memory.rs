//! When a difference is acted on: not when it is seen, but when it is seen again, unchanged; and
//! not when too much would change at once.

use std::collections::{BTreeSet, HashMap};

use super::difference::{Difference, Object, What};

/// How many servers one pass may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Of the servers of the cluster, in per cent.
    pub percent: u8,
    /// This many may change however few there are.
    pub few: usize,
}

impl Limit {
    /// How many of `servers` may change.
    pub fn of(self, servers: usize) -> usize {
        let share = servers.saturating_mul(usize::from(self.percent)) / 100;
        share.max(self.few)
    }
}

/// The differences of the pass before.
#[derive(Debug, Default)]
pub struct Memory(HashMap<(Object, What, String), Difference>);

/// What is to be done in a pass.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Seen twice: to be repaired now.
    pub due: Vec<Difference>,
    /// Seen for the first time, or nothing that can be repaired.
    pub waiting: Vec<Difference>,
    /// So many servers would have changed, and so many may: nothing is due.
    pub stopped: Option<(usize, usize)>,
}

impl Memory {
    /// Takes the differences of this pass, of a cluster with `servers` servers.
    pub fn pass(&mut self, differences: Vec<Difference>, servers: usize, limit: Limit) -> Plan {
        let mut plan = Plan::default();
        let mut seen = HashMap::new();
        for difference in differences {
            let key = key(&difference);
            let again = self.0.get(&key) == Some(&difference);
            if again && difference.repair.is_some() {
                plan.due.push(difference.clone());
            } else {
                plan.waiting.push(difference.clone());
            }
            seen.insert(key, difference);
        }
        self.0 = seen;
        let changed = plan
            .due
            .iter()
            .filter(|difference| matches!(difference.object, Object::Server(_)))
            .map(|difference| difference.object)
            .collect::<BTreeSet<_>>()
            .len();
        let allowed = limit.of(servers);
        if changed > allowed {
            plan.stopped = Some((changed, allowed));
            plan.waiting.append(&mut plan.due);
        }
        plan
    }

    /// What was repaired must be seen twice again before it is repaired again.
    pub fn forget(&mut self, difference: &Difference) {
        self.0.remove(&key(difference));
    }
}

/// There may be several unknown NICs of one server.
fn key(difference: &Difference) -> (Object, What, String) {
    let which = match difference.repair {
        Some(_) => String::new(),
        None => difference.after.clone(),
    };
    (difference.object, difference.what, which)
}
