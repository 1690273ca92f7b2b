//! Who runs where: the guests on one CPU, the responder on the others, both before whatever else
//! the machine does. Without that the figures tell of the scheduler.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::priority::Preferred;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The CPUs of the guests, and those of the responder. The same if there is only one.
pub struct Cpus {
    guests: CpuSet,
    responder: CpuSet,
    _preferred: Preferred,
}

impl Cpus {
    /// Divides the CPUs that we may use, and takes the highest priority for us and all that we
    /// start from now on.
    ///
    /// # Errors
    /// We are not root.
    pub fn divide() -> Result<Self> {
        let all = sched_getaffinity(SELF)?;
        let numbers: Vec<usize> = (0..CpuSet::count())
            .filter(|number| all.is_set(*number).unwrap_or(false))
            .collect();
        let mut cpus = Self {
            guests: all,
            responder: all,
            _preferred: Preferred::take().context("priority (are you root?)")?,
        };
        if let [others @ .., last] = &*numbers
            && !others.is_empty()
        {
            cpus.guests = set(&[*last])?;
            cpus.responder = set(others)?;
        }
        sched_setaffinity(SELF, &cpus.guests)?;
        Ok(cpus)
    }

    /// Does something on the CPUs of the responder: starts it.
    pub fn as_responder<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(SELF, &self.responder)?;
        let started = start();
        sched_setaffinity(SELF, &self.guests)?;
        started
    }
}

fn set(numbers: &[usize]) -> Result<CpuSet> {
    let mut cpus = CpuSet::new();
    for number in numbers {
        cpus.set(*number)?;
    }
    Ok(cpus)
}
