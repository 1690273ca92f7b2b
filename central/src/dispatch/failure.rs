//! The classes of failures, and the sentence for each.
//!
//! The texts of Ganeti, RAPI and OS definitions have names and addresses of nodes, paths, and
//! whatever a script printed. Cloud administrators read them; users read a sentence of ours.

use std::fmt;

use serde_json::Value;

/// The class of a failure of a cluster: all that users are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No node has the memory, the disk or the processors.
    NoRoom,
    /// The OS definition failed.
    Image,
    /// A disk could not be made, grown or reached.
    Disk,
    /// A network, an address or a NIC.
    Network,
    /// The instance is not in a state for it.
    State,
    /// A job before it failed.
    Dependency,
    /// Somebody canceled the job.
    Canceled,
    /// All else.
    Internal,
}

/// The signs of each class in Ganeti's codes and texts; the first that fits counts.
const SIGNS: &[(Failure, &[&str])] = &[
    (
        Failure::Image,
        &[
            "os create script",
            "could not add os",
            "os_create",
            "snf-image",
            "install script",
            "osparam",
            "image-error",
        ],
    ),
    (
        Failure::NoRoom,
        &[
            "insufficient_resources",
            "iallocator",
            "not enough memory",
            "not enough disk",
            "not enough free",
            "no space left",
            "insufficient",
        ],
    ),
    (Failure::Dependency, &["dependency job"]),
    (
        Failure::State,
        &[
            "wrong_state",
            "is marked to be up",
            "is marked to be down",
            "is not running",
        ],
    ),
    (
        Failure::Network,
        &[
            "network",
            "mac address",
            "ip address",
            "nic.",
            "conflicting ip",
            "ifup",
        ],
    ),
    (
        Failure::Disk,
        &["block device", "blockdev", "disk", "drbd", "volume group"],
    ),
];

impl Failure {
    /// The class of a job's result: `[exception, [text, code]]`, or whatever it is.
    pub fn of(status: &str, result: &Value) -> Self {
        if status == "canceled" {
            return Self::Canceled;
        }
        Self::of_text(&result.to_string())
    }

    /// The class of a text that says why.
    pub fn of_text(text: &str) -> Self {
        let text = text.to_lowercase();
        SIGNS
            .iter()
            .find(|(_, signs)| signs.iter().any(|sign| text.contains(sign)))
            .map_or(Self::Internal, |(failure, _)| *failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoRoom => "the cluster had no room for it",
            Self::Image => "the image could not be written",
            Self::Disk => "a disk of the server could not be set up",
            Self::Network => "a network of the server could not be set up",
            Self::State => "the server was not in a state for it",
            Self::Dependency => "an operation that has to come first failed",
            Self::Canceled => "the operation was canceled by an administrator",
            Self::Internal => "internal error of the cluster",
        })
    }
}

/// The sentence about a creation that failed.
pub fn of_creation(failure: Failure, job: u64) -> String {
    format!("the server could not be created: {failure} (reference: job {job})")
}

/// The sentence about something that the cluster did not take at all.
pub fn of_refusal(kind: &str, failure: Failure, request: i64) -> String {
    format!("{kind}: the cluster refused the operation: {failure} (reference: request {request})")
}

/// The sentence about a message of an image deployment.
pub fn of_deployment(kind: &str) -> &'static str {
    match kind {
        "image-error" => "the image could not be written",
        "image-warning" => "the deployment of the image gave a warning",
        _ => "the image is being deployed",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_of_jobs_have_classes() {
        for (result, expected) in [
            (
                json!([
                    "OpPrereqError",
                    [
                        "Can't compute nodes using iallocator 'hail'",
                        "insufficient_resources"
                    ]
                ]),
                Failure::NoRoom,
            ),
            (
                json!([
                    "OpExecError",
                    [
                        "Could not add os for instance snf-1 on node node1: OS create script failed (exited with exit code 1), last lines in the log file: /srv/images/secret"
                    ]
                ]),
                Failure::Image,
            ),
            (
                json!([
                    "OpPrereqError",
                    ["Instance is marked to be up", "wrong_state"]
                ]),
                Failure::State,
            ),
            (
                json!([
                    "OpExecError",
                    ["Can't create block device <DRBD8> on node node2.example.org"]
                ]),
                Failure::Disk,
            ),
            (
                json!([
                    "OpExecError",
                    ["Dependency job 89 finished with status 'error'"]
                ]),
                Failure::Dependency,
            ),
            (
                json!(["OpExecError", ["ssh: node3 said no"]]),
                Failure::Internal,
            ),
            (json!(null), Failure::Internal),
        ] {
            assert_eq!(Failure::of("error", &result), expected, "{result}");
        }
        assert_eq!(Failure::of("canceled", &json!(null)), Failure::Canceled);
    }

    #[test]
    fn no_sentence_repeats_what_the_cluster_said() {
        let secret = json!([
            "OpExecError",
            ["disk failed on node7.internal, /srv/images/a"]
        ]);
        let text = of_creation(Failure::of("error", &secret), 17);
        assert!(!text.contains("node7") && !text.contains("/srv"), "{text}");
        assert!(text.ends_with("(reference: job 17)"), "{text}");
    }
}
