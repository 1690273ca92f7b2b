//! Who runs where: the guests on one CPU, the responder on the others, both before whatever else
//! the machine does. Without that the figures tell of the scheduler.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The priority of this session (sched(7), autogroup).
const SESSION: &str = "/proc/self/autogroup";
/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The CPUs of the guests, and those of the responder. The same if there is only one.
pub struct Cpus {
    guests: CpuSet,
    responder: CpuSet,
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
        };
        if let [others @ .., last] = &*numbers
            && !others.is_empty()
        {
            cpus.guests = set(&[*last])?;
            cpus.responder = set(others)?;
        }
        prefer().context("priority (are you root?)")?;
        // Where the scheduler groups by session, a priority counts only within the session.
        let _ = fs::write(SESSION, "-20");
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

impl Drop for Cpus {
    fn drop(&mut self) {
        let _ = fs::write(SESSION, "0");
    }
}

fn set(numbers: &[usize]) -> Result<CpuSet> {
    let mut cpus = CpuSet::new();
    for number in numbers {
        cpus.set(*number)?;
    }
    Ok(cpus)
}

/// The highest priority, and the shortest slice: with a short one, who wakes up runs at once also
/// if something else is running (Linux 6.12; older ones ignore it).
#[allow(unsafe_code)] // neither libc nor nix has a function for it
fn prefer() -> std::io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: -20,
        sched_priority: 0,
        sched_runtime: 100_000, // nanoseconds, the least there is
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: 0 is this thread; the attributes are a whole struct sched_attr, and only read.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
