//! The message about an operation on an instance.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventTime;

/// An operation on an instance has a new status, or its log a new line. Of tag operations only the
/// end is told, if it is `success` or `error`.
///
/// `instance_nics`, `instance_disks` and `instance_hvparams` are what Ganeti's configuration
/// has for the instance after the operation. They are there when the operation can have
/// changed them: after a successful create or start, and after a modify or a disk growth
/// however it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpMessage {
    /// When the operation got this status, by the master's clock.
    pub event_time: EventTime,
    /// The instance's name.
    pub instance: String,
    /// The opcode: `OP_INSTANCE_CREATE`. Opcodes of later Ganeti versions are passed on.
    pub operation: String,
    /// `queued`, `waiting`, `running`, `canceling`, `success`, `error`, `canceled`; or what a
    /// later Ganeti version has.
    pub status: String,
    /// The number of the Ganeti job.
    #[serde(rename = "jobId")]
    pub job_id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The newest line of the operation's log, if there is one: most often text.
    #[serde(default)]
    pub logmsg: Value,
    /// What the operation returned, or `[error class, [arguments…]]`; null until it ended.
    #[serde(default)]
    pub result: Value,
    /// Of the operation's input, an object:
    /// - of `OP_INSTANCE_CREATE` and `OP_INSTANCE_SET_PARAMS` `nics`, `disks`, `hvparams` and
    ///   `beparams`, null where it had none; of a create that failed the whole input, so that it
    ///   can be repeated;
    /// - of `OP_TAGS_SET` and `OP_TAGS_DEL` `dry_run`: whether it was only tried, null where the
    ///   input does not say;
    /// - of all others empty. What a start is given, for one, holds for that start alone.
    ///
    /// Empty in a message that would be too long with it.
    #[serde(default)]
    pub job_fields: Value,
    /// The tags that a create gives the instance, or that a tag operation sets or removes; empty
    /// for all others.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The instance's NICs, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_nics: Option<Vec<InstanceNic>>,
    /// The instance's disks, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_disks: Option<Vec<InstanceDisk>>,
    /// The hypervisor parameters that decide what the instance boots from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_hvparams: Option<InstanceHvparams>,
}

impl OpMessage {
    /// Returns whether the input says that the operation was only tried: then nothing has changed. Most
    /// bodies do not say so; of an agent of ours the header `x-dry-run` does.
    pub fn says_dry_run(&self) -> bool {
        self.job_fields.get("dry_run") == Some(&Value::Bool(true))
    }

    /// Returns whether the operation can have changed what the instance is made of as `job_fields` says.
    pub fn tells_parameters(&self) -> bool {
        matches!(
            self.operation.as_str(),
            "OP_INSTANCE_CREATE" | "OP_INSTANCE_SET_PARAMS"
        )
    }
}

/// One NIC of an instance, as Ganeti's configuration has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceNic {
    /// Its address, if it has one.
    #[serde(default)]
    pub ip: Option<String>,
    /// Its name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Its MAC address.
    pub mac: String,
    /// `bridged`, `routed`, `openvswitch`: the effective one.
    #[serde(default)]
    pub mode: Option<String>,
    /// The name of its network, if it is in one.
    #[serde(default)]
    pub network: Option<String>,
    /// The bridge or routing table: the effective one.
    #[serde(default)]
    pub link: Option<String>,
    /// Its identity in Ganeti's configuration.
    #[serde(default)]
    pub uuid: Option<String>,
    /// `protected`, `limited` or `unprotected`, if the instance has a firewall tag for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<String>,
}

/// One disk of an instance, as Ganeti's configuration has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceDisk {
    /// Its name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Its size in mebibytes.
    pub size: u64,
    /// Its identity in Ganeti's configuration.
    #[serde(default)]
    pub uuid: Option<String>,
}

/// What an instance boots from: the effective hypervisor parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceHvparams {
    /// `disk`, `cdrom`, `network`, …
    #[serde(default)]
    pub boot_order: Option<String>,
    /// The image in the CD drive; empty if there is none.
    #[serde(default)]
    pub cdrom_image_path: Option<String>,
}
