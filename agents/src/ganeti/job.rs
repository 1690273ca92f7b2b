//! A job file of Ganeti's queue: `/var/lib/ganeti/queue/job-<id>`.
//!
//! One JSON object: the job's id and times, and its opcodes, each with its input, status, log
//! and result. Ganeti's two writers differ in blanks and in which fields they write; fields
//! that we do not know are ignored, and times that make no sense are as good as none.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json_object::{self, ObjectSeed};
use crate::message::EventTime;

/// The longest job file that is read, in bytes. Results of queries over a whole large cluster
/// are some megabytes.
pub const FILE_LIMIT: usize = 64 << 20;

/// Why a job file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Nothing is in the file.
    #[error("the file is empty")]
    Empty,
    /// The file ends in the middle: it may be whole when read again.
    #[error("the file is cut off: {0}")]
    CutOff(serde_json::Error),
    /// More than [`FILE_LIMIT`] bytes.
    #[error("{0} bytes: more than {FILE_LIMIT}")]
    TooLong(usize),
    /// Not JSON, or a field is missing or has the wrong type; the text names it.
    #[error("not a job: {0}")]
    Malformed(serde_json::Error),
    /// The id in the file is another than that in the file's name.
    #[error("the file is named job-{name} and has the id {id}")]
    OtherId {
        /// The id in the name.
        name: u64,
        /// The id in the file.
        id: u64,
    },
}

impl JobError {
    /// Whether reading the file again may help.
    pub fn may_be_torn(&self) -> bool {
        matches!(self, Self::Empty | Self::CutOff(_))
    }
}

/// The number in the name of a job file, if it is one: `job-42`. Temporary files
/// (`job-42-5865-24.tmp`, `job-42by924zt_.new`) are none.
pub fn id_of_name(name: &[u8]) -> Option<u64> {
    let digits = name.strip_prefix(b"job-")?;
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A job as its file has it; what is not looked at by everybody stays in the file's text.
#[derive(Debug, Deserialize)]
pub struct Job<'a> {
    /// Its number.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// Its opcodes, in the order in which they run.
    #[serde(borrow, deserialize_with = "ops")]
    pub ops: Vec<Op<'a>>,
    /// When it was submitted.
    #[serde(default, rename = "received_timestamp", deserialize_with = "time")]
    pub received: Option<EventTime>,
    /// When its process began.
    #[serde(default, rename = "start_timestamp", deserialize_with = "time")]
    pub start: Option<EventTime>,
    /// When its last opcode ended.
    #[serde(default, rename = "end_timestamp", deserialize_with = "time")]
    pub end: Option<EventTime>,
}

impl<'a> Job<'a> {
    /// Parses the file of job `id`.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn parse(id: u64, bytes: &'a [u8]) -> Result<Self, JobError> {
        if bytes.len() > FILE_LIMIT {
            return Err(JobError::TooLong(bytes.len()));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(JobError::Empty);
        }
        let job: Self = json_object::from_slice(bytes, "a job").map_err(|error| {
            if error.is_eof() {
                JobError::CutOff(error)
            } else {
                JobError::Malformed(error)
            }
        })?;
        if job.id == id {
            Ok(job)
        } else {
            Err(JobError::OtherId {
                name: id,
                id: job.id,
            })
        }
    }

    /// Whether all its opcodes have ended.
    pub fn is_final(&self) -> bool {
        self.ops.iter().all(|op| op.status.is_final())
    }

    /// When `op` (one of this job's) got the status that it has: the time that Ganeti noted
    /// for that status, else the nearest that it did note.
    pub fn status_time(&self, op: &Op<'_>) -> Option<EventTime> {
        let noted = match op.status.0.as_str() {
            "queued" => self.received,
            "waiting" | "canceling" => op.start,
            "running" => op.exec.or(op.start),
            _ if op.status.is_final() => op.end,
            _ => None,
        };
        noted
            .or(self.end)
            .or(op.exec)
            .or(op.start)
            .or(self.start)
            .or(self.received)
    }
}

/// One opcode of a job.
#[derive(Debug, Deserialize)]
pub struct Op<'a> {
    /// Its parameters, not yet looked at: see [`Op::input`].
    #[serde(borrow)]
    input: &'a RawValue,
    /// How far it is.
    pub status: Status,
    /// What it returned, not yet looked at: see [`Op::result`].
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    /// What it has told so far.
    #[serde(default)]
    pub log: Log,
    /// When it began to wait for its locks.
    #[serde(default, rename = "start_timestamp", deserialize_with = "time")]
    pub start: Option<EventTime>,
    /// When it had its locks.
    #[serde(default, rename = "exec_timestamp", deserialize_with = "time")]
    pub exec: Option<EventTime>,
    /// When it ended.
    #[serde(default, rename = "end_timestamp", deserialize_with = "time")]
    pub end: Option<EventTime>,
}

impl Op<'_> {
    /// Those of its parameters that [`Input`] keeps.
    ///
    /// # Errors
    /// They are no JSON object, or one that is kept is nested deeper than a parser should go.
    pub fn input(&self) -> Result<Input, serde_json::Error> {
        serde_json::from_str(self.input.get())
    }

    /// All its parameters; null if they are nested deeper than a parser should go.
    pub fn whole_input(&self) -> Value {
        serde_json::from_str(self.input.get()).unwrap_or_default()
    }

    /// What it returned; null until it ended. A result that is nested deeper than a parser
    /// should go is null too.
    pub fn result(&self) -> Value {
        self.result
            .as_ref()
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }

    /// How long the result is, in bytes of the file.
    pub fn result_length(&self) -> usize {
        self.result.as_ref().map_or(0, |raw| raw.get().len())
    }
}

/// The parameters of an opcode that say what it is on and what it changes. A create has some
/// sixty, and a burst of jobs would spend a quarter of its time on those that nobody asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Input(Vec<(&'static str, Value)>);

/// The parameters that are kept.
const KEPT: [&str; 17] = [
    "OP_ID",
    // OP_INSTANCE_*
    "instance_name",
    "instances",
    "nics",
    "disks",
    "hvparams",
    "beparams",
    // OP_NETWORK_*
    "network_name",
    "network",
    "gateway",
    "add_reserved_ips",
    "remove_reserved_ips",
    "group_name",
    // OP_TAGS_*
    "kind",
    "name",
    "tags",
    "dry_run",
];

impl Input {
    /// The opcode: `OP_INSTANCE_CREATE`; empty if the job does not say.
    pub fn opcode(&self) -> &str {
        self.text("OP_ID").unwrap_or_default()
    }

    /// A parameter; null if there is none of that name among those that are kept.
    pub fn get(&self, name: &str) -> &Value {
        static NULL: Value = Value::Null;
        let found = self.0.iter().rfind(|(own, _)| *own == name);
        found.map_or(&NULL, |(_, value)| value)
    }

    /// A parameter that is a text which is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).as_str().filter(|text| !text.is_empty())
    }

    /// A parameter that is a list of texts; what is no text in it is left out. `None` if it
    /// is no list.
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = self.get(name).as_array()?;
        Some(
            list.iter()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
        )
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;
        impl<'de> Visitor<'de> for InputVisitor {
            type Value = Input;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an opcode's parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut parameters: A) -> Result<Input, A::Error> {
                let mut kept = Vec::new();
                while let Some(Name(name)) = parameters.next_key()? {
                    match name {
                        Some(name) => kept.push((name, parameters.next_value()?)),
                        None => {
                            parameters.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Input(kept))
            }
        }
        deserializer.deserialize_map(InputVisitor)
    }
}

/// The name of a parameter, if it is one that is kept.
struct Name(Option<&'static str>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(KEPT.into_iter().find(|kept| *kept == name)))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// The status of an opcode, as Ganeti writes it; a later Ganeti may have more of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct Status(String);

impl Status {
    /// Ganeti's word for it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the opcode has ended.
    pub fn is_final(&self) -> bool {
        matches!(self.0.as_str(), "success" | "error" | "canceled")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What an opcode has told: how many lines, and the last of them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Log {
    /// The number of lines.
    pub length: usize,
    /// The last line's content: most often text.
    pub last: Value,
}

impl<'de> Deserialize<'de> for Log {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LogVisitor;
        impl<'de> Visitor<'de> for LogVisitor {
            type Value = Log;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of log lines")
            }

            fn visit_unit<E>(self) -> Result<Log, E> {
                Ok(Log::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut lines: A) -> Result<Log, A::Error> {
                let mut length = 0usize;
                let mut newest: Option<&RawValue> = None;
                while let Some(line) = lines.next_element()? {
                    length = length.saturating_add(1);
                    newest = Some(line);
                }
                // A line is [number, [seconds, microseconds], type, content].
                let last = newest
                    .and_then(|line| serde_json::from_str::<Vec<Value>>(line.get()).ok())
                    .and_then(|mut line| line.pop())
                    .unwrap_or_default();
                Ok(Log { length, last })
            }
        }
        deserializer.deserialize_any(LogVisitor)
    }
}

/// The opcodes of a job, each a JSON object.
fn ops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Op<'de>>, D::Error> {
    struct OpsVisitor;
    impl<'de> Visitor<'de> for OpsVisitor {
        type Value = Vec<Op<'de>>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of opcodes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut ops = Vec::new();
            while let Some(op) = list.next_element_seed(ObjectSeed::new("an opcode"))? {
                ops.push(op);
            }
            Ok(ops)
        }
    }
    deserializer.deserialize_seq(OpsVisitor)
}

/// Old Ganeti versions wrote the id as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct NumberVisitor;
    impl Visitor<'_> for NumberVisitor {
        type Value = u64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a job number")
        }

        fn visit_u64<E>(self, id: u64) -> Result<u64, E> {
            Ok(id)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            text.parse()
                .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(NumberVisitor)
}

/// `[seconds, microseconds]`; what is something else is none.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventTime>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const QUEUED: &[u8] = include_bytes!("../../testdata/job-7.queued.json");
    const SUCCESS: &[u8] = include_bytes!("../../testdata/job-7.success.json");

    fn time(seconds: u64, microseconds: u32) -> Option<EventTime> {
        EventTime::new(seconds, microseconds)
    }

    #[test]
    fn a_job_as_luxid_submits_it() {
        let job = Job::parse(7, QUEUED).unwrap();
        assert_eq!(job.received, time(1_795_364_206, 646_829));
        assert!(!job.is_final());
        let [op] = &job.ops[..] else { panic!() };
        assert_eq!(op.status.as_str(), "queued");
        assert_eq!(op.log, Log::default());
        assert_eq!(op.result(), Value::Null);
        assert_eq!(job.status_time(op), job.received);
        let input = op.input().unwrap();
        assert_eq!(input.opcode(), "OP_INSTANCE_CREATE");
        assert_eq!(input.text("instance_name"), Some("snf-1"));
        assert_eq!(
            input.texts("tags").unwrap(),
            ["synnefo:network:snf-nic-1:unprotected", "labtag"]
        );
        assert_eq!(input.get("no_such"), &Value::Null);
    }

    #[test]
    fn a_job_as_its_own_process_ends_it() {
        let job = Job::parse(7, SUCCESS).unwrap();
        assert!(job.is_final());
        let op = &job.ops[0];
        assert_eq!(op.result(), json!(["node1.gnt.lab"]));
        assert_eq!(op.log.length, 8);
        assert_eq!(op.log.last, json!("* starting instance..."));
        assert_eq!(job.status_time(op), time(1_795_364_213, 468_815));
    }

    #[test]
    fn every_cut_of_a_file_is_told_from_garbage() {
        for end in 0..SUCCESS.len() - 2 {
            let error = Job::parse(7, &SUCCESS[..end]).unwrap_err();
            assert!(error.may_be_torn(), "cut at {end}: {error}");
        }
        for garbage in [
            "x",
            "[]",
            "null",
            "7",
            "{\"id\":7}",
            "{\"id\":-7,\"ops\":[]}",
        ] {
            let error = Job::parse(7, garbage.as_bytes()).unwrap_err();
            assert!(!error.may_be_torn(), "{garbage}: {error}");
        }
        let error = Job::parse(8, SUCCESS).unwrap_err().to_string();
        assert!(error.contains("job-8") && error.contains('7'), "{error}");
    }

    #[test]
    fn a_list_in_the_place_of_an_object_is_told_as_one() {
        for (file, expected) in [
            ("[]", "a job (a JSON object)"),
            ("[7, [], null, null, null]", "a job (a JSON object)"),
            (r#"{"id": 7, "ops": [[]]}"#, "an opcode (a JSON object)"),
            (
                r#"{"id": 7, "ops": [[{}, "success", null, null, null, null, null]]}"#,
                "an opcode (a JSON object)",
            ),
            (r#"{"id": 7, "ops": {}}"#, "a list of opcodes"),
        ] {
            let error = Job::parse(7, file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{file}: {error}");
            assert!(error.starts_with("not a job: invalid type"), "{error}");
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        for (file, field) in [
            (json!({"ops": []}), "id"),
            (json!({"id": 7}), "ops"),
            (json!({"id": 7, "ops": [{"status": "queued"}]}), "input"),
            (json!({"id": 7, "ops": [{"input": {}}]}), "status"),
        ] {
            let error = Job::parse(7, file.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn what_a_later_ganeti_may_write_is_taken_as_it_comes() {
        let file = json!({
            "id": "7", "later": {"x": [1]}, "end_timestamp": "yesterday",
            "received_timestamp": [1, 2],
            "ops": [{
                "input": {"OP_ID": "OP_INSTANCE_LATER", "reason": [["", "", 1.5e300]]},
                "status": "paused", "log": [[1, [2, 3], "other", {"x": 1}]],
                "start_timestamp": [-1, 0], "exec_timestamp": 17, "more": null
            }]
        });
        let file = file.to_string();
        let job = Job::parse(7, file.as_bytes()).unwrap();
        let op = &job.ops[0];
        assert_eq!(op.status.as_str(), "paused");
        assert!(!job.is_final());
        assert_eq!(op.log.last, json!({"x": 1}));
        assert_eq!(job.status_time(op), time(1, 2));
    }

    #[test]
    fn a_result_nested_without_end_is_no_result() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let file = format!(
            r#"{{"id":7,"ops":[{{"input":{{}},"status":"success","log":null,"result":{deep}}}]}}"#
        );
        let job = Job::parse(7, file.as_bytes()).unwrap();
        assert!(job.is_final());
        assert_eq!(job.ops[0].result(), Value::Null);
    }

    #[test]
    fn only_a_finished_file_has_the_name_of_a_job() {
        assert_eq!(id_of_name(b"job-42"), Some(42));
        for name in [
            "job-",
            "job-42-5865-24.tmp",
            "job-42by924zt_.new",
            "serial",
            "job--1",
            "job-+1",
            "job-99999999999999999999",
            "xjob-1",
            "job-1 ",
            "lock",
        ] {
            assert_eq!(id_of_name(name.as_bytes()), None, "{name}");
        }
    }
}
