//! Which of two events is the newer one.
//!
//! Everything that messages say about a server is kept in registers of the kind "the last writer
//! wins", each with the [`Order`] of the event that wrote it. An event that is not newer than
//! the register changes nothing in it, so events may come late, twice or in any order and the
//! end is the same. Clocks decide only between events of one job with one status, which one
//! clock has stamped.

use agents::message::EventTime;

use super::entity::server;

/// The place of an event in the history of its object: the job, how far the job was, the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// Ganeti's job id.
    pub job: i64,
    /// [`JobStatus::rank`].
    pub rank: i32,
    /// Microseconds since 1970, by the clock of the Ganeti master.
    pub time: i64,
}

impl Order {
    /// The place of what a look at the cluster has shown at `time`, when all jobs up to `job`
    /// were over for the object: after everything that those jobs say, before what later ones do.
    pub fn looked(job: i64, time: i64) -> Self {
        Self {
            job,
            rank: FINAL,
            time,
        }
    }

    pub fn new(job: u64, status: JobStatus, time: EventTime) -> Self {
        Self {
            job: i64::try_from(job).unwrap_or(i64::MAX),
            rank: status.rank(),
            time: i64::try_from(time.since_epoch().as_micros()).unwrap_or(i64::MAX),
        }
    }
}

/// The status of a job or of one of its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    Queued,
    Waiting,
    Running,
    Canceling,
    Canceled,
    Success,
    Error,
}

/// The rank of the statuses that are the last of their job.
const FINAL: i32 = 4;

impl JobStatus {
    /// The status with this name; none: Ganeti has no such status.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "queued" => Self::Queued,
            "waiting" => Self::Waiting,
            "running" => Self::Running,
            "canceling" => Self::Canceling,
            "canceled" => Self::Canceled,
            "success" => Self::Success,
            "error" => Self::Error,
            _ => return None,
        })
    }

    /// As Ganeti writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Canceling => "canceling",
            Self::Canceled => "canceled",
            Self::Success => "success",
            Self::Error => "error",
        }
    }

    /// How far a job with this status is. A job may go back from `canceling` to an end only.
    pub fn rank(self) -> i32 {
        match self {
            Self::Queued => 0,
            Self::Waiting => 1,
            Self::Running => 2,
            Self::Canceling => 3,
            Self::Canceled | Self::Success | Self::Error => FINAL,
        }
    }

    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        self.rank() == FINAL
    }
}

/// The order of the event that the shown job is from.
pub fn job(server: &server::Model) -> Order {
    Order {
        job: server.job_id,
        rank: server.job_rank,
        time: server.job_time,
    }
}

/// The order of the event that the state is from.
pub fn state(server: &server::Model) -> Order {
    Order {
        job: server.state_job,
        rank: server.state_rank,
        time: server.state_time,
    }
}

/// The order of the event that the NICs are from.
pub fn nics(server: &server::Model) -> Order {
    Order {
        job: server.nics_job,
        rank: server.nics_rank,
        time: server.nics_time,
    }
}

/// The order of the event that the flavor is from.
pub fn shape(server: &server::Model) -> Order {
    Order {
        job: server.shape_job,
        rank: server.shape_rank,
        time: server.shape_time,
    }
}

/// Whether `job` is known to have ended: by its own last event, or since a later one has begun.
pub fn is_over(server: &server::Model, job: i64) -> bool {
    server.job_id > job || (server.job_id == job && server.job_rank == FINAL)
}
