//! Running before whatever else the machine does.

use std::fs;
use std::io;

/// The priority of this session (sched(7), autogroup).
const SESSION: &str = "/proc/self/autogroup";

/// The highest priority for this thread and all that it starts from now on, until this is
/// dropped.
pub struct Preferred(());

impl Preferred {
    /// Takes it.
    ///
    /// # Errors
    /// We are not root.
    pub fn take() -> io::Result<Self> {
        prefer()?;
        // Where the scheduler groups by session, a priority counts only within the session.
        let _ = fs::write(SESSION, "-20");
        Ok(Self(()))
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        let _ = fs::write(SESSION, "0");
    }
}

/// The highest priority, and the shortest slice: with a short one, who wakes up runs at once also
/// if something else is running (Linux 6.12; older ones ignore it).
#[allow(unsafe_code)] // neither libc nor nix has a function for it
fn prefer() -> io::Result<()> {
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
        _ => Err(io::Error::last_os_error()),
    }
}
