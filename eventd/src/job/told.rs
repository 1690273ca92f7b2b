//! What has been told of a job: for each opcode its status and how long its log was.

use agents::ganeti::job::{Job, Op};
use serde::{Deserialize, Serialize};

/// What has been told of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Told(Vec<OpMark>);

/// What has been told of an opcode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpMark(Box<str>, usize);

impl Told {
    /// All that this version of the job has.
    pub fn all_of(job: &Job<'_>) -> Self {
        let mark = |op: &Op<'_>| OpMark(op.status.as_str().into(), op.log.length);
        Self(job.ops.iter().map(mark).collect())
    }

    /// What has been told of the opcode at `index`.
    pub(super) fn op(&self, index: usize) -> Option<&OpMark> {
        self.0.get(index)
    }
}

impl OpMark {
    /// Whether nothing has changed since.
    pub(super) fn is(&self, op: &Op<'_>) -> bool {
        *self.0 == *op.status.as_str() && self.1 == op.log.length
    }

    pub(super) fn status(&self) -> &str {
        &self.0
    }
}
