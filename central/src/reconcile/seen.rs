//! What a cluster says that it has: one look at it.
//!
//! The jobs are asked for before the instances. What a job that had ended by then did is in the
//! instances' answer; what a later job does has a higher number than [`Seen::last_job`], and its
//! messages win over what this look says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use agents::message::{InstanceDisk, InstanceNic};
use serde::Deserialize;
use serde_json::Value;

use crate::dispatch::machine;
use crate::ganeti::job;
use crate::ganeti::naming::Naming;
use crate::ganeti::rapi::{Rapi, RapiError};
use crate::ganeti::traces::Traces;
use crate::model::register::JobStatus;

/// The most jobs that are asked for one by one in one look.
const JOBS: usize = 200;

/// A cluster's answer, as far as it is about us.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The highest job number there was.
    pub last_job: i64,
    /// The jobs that are still in the queue.
    pub jobs: HashMap<i64, JobStatus>,
    /// Jobs that the cluster does not know any more.
    pub gone: HashSet<i64>,
    /// The servers that a job which has not ended is about.
    pub busy_servers: HashSet<i64>,
    /// The networks that a job which has not ended is about.
    pub busy_networks: HashSet<i64>,
    /// By the number of the server.
    pub instances: BTreeMap<i64, Instance>,
    /// By the number of the network.
    pub networks: BTreeMap<i64, Network>,
    /// The names of all node groups.
    pub groups: BTreeSet<String>,
    /// The cluster's traces of the databases that use it.
    pub traces: Traces,
}

/// An instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instance {
    /// None: its node does not tell.
    pub running: Option<bool>,
    /// Processors and MiB of memory.
    pub shape: Option<(i64, i64)>,
    pub nics: Vec<InstanceNic>,
    pub disks: Vec<InstanceDisk>,
    pub tags: Vec<String>,
    /// It boots from an image in its CD drive; none: its hypervisor does not tell.
    pub rescue: Option<bool>,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The node groups that it is connected to.
    pub groups: BTreeSet<String>,
    /// Whether an instance has a NIC in it.
    pub used: bool,
}

#[derive(Deserialize)]
struct JobAnswer {
    id: i64,
    status: String,
    ops: Vec<OpAnswer>,
}

#[derive(Deserialize)]
struct OpAnswer {
    #[serde(default)]
    instance_name: Option<String>,
    #[serde(default)]
    network_name: Option<String>,
    /// Of operations on tags, which may have another shape in operations that we do not know.
    #[serde(default)]
    name: Value,
    #[serde(default)]
    reason: Value,
}

#[derive(Deserialize)]
struct InstanceAnswer {
    name: String,
    oper_state: Option<bool>,
    #[serde(default)]
    beparams: BeparamsAnswer,
    #[serde(default)]
    hvparams: Value,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(rename = "nic.names", default)]
    nic_names: Vec<Option<String>>,
    #[serde(rename = "nic.macs")]
    nic_macs: Vec<String>,
    #[serde(rename = "nic.ips", default)]
    nic_ips: Vec<Option<String>>,
    #[serde(rename = "nic.networks.names", default)]
    nic_networks: Vec<Option<String>>,
    #[serde(rename = "disk.names", default)]
    disk_names: Vec<Option<String>>,
    #[serde(rename = "disk.sizes", default)]
    disk_sizes: Vec<u64>,
}

#[derive(Default, Deserialize)]
struct BeparamsAnswer {
    vcpus: Option<i64>,
    maxmem: Option<i64>,
}

#[derive(Deserialize)]
struct NetworkAnswer {
    name: String,
    #[serde(default)]
    group_list: Vec<Vec<Value>>,
    #[serde(default)]
    inst_list: Vec<String>,
}

#[derive(Deserialize)]
struct GroupAnswer {
    name: String,
}

impl Seen {
    /// Asks a cluster.
    ///
    /// # Errors
    /// One of the answers did not come, or is not what it should be: then nothing is concluded
    /// from the others either.
    ///
    /// `told` is the highest job number that messages had told of before: the queue may have been
    /// emptied since.
    pub async fn look(rapi: &Rapi, naming: &Naming, told: i64) -> Result<Self, RapiError> {
        let bulk = [("bulk", "1")];
        let info = rapi.get("/2/info", &[]).await?;
        let jobs: Vec<JobAnswer> = rapi.read("/2/jobs", &bulk).await?;
        let groups: Vec<GroupAnswer> = rapi.read("/2/groups", &bulk).await?;
        let networks: Vec<NetworkAnswer> = rapi.read("/2/networks", &bulk).await?;
        let instances: Vec<InstanceAnswer> = rapi.read("/2/instances", &bulk).await?;
        let mut seen = Self {
            last_job: told,
            groups: groups.into_iter().map(|group| group.name).collect(),
            ..Self::default()
        };
        seen.traces.note_info(naming, &info);
        seen.read_jobs(naming, jobs);
        for network in networks {
            seen.traces.note_network(naming, &network.name);
            let Some(id) = naming.network_id(&network.name) else {
                continue;
            };
            let groups = network.group_list.iter();
            seen.networks.insert(
                id,
                Network {
                    groups: groups
                        .filter_map(|entry| Some(entry.first()?.as_str()?.to_owned()))
                        .collect(),
                    used: !network.inst_list.is_empty(),
                },
            );
        }
        for instance in instances {
            let nics = instance.nic_names.iter().flatten().map(String::as_str);
            let disks = instance.disk_names.iter().flatten().map(String::as_str);
            let traces = &mut seen.traces;
            traces.note_instance(naming, &instance.name, nics, disks);
            if let Some(id) = naming.instance_id(&instance.name) {
                seen.instances.insert(id, instance.read());
            }
        }
        Ok(seen)
    }

    fn read_jobs(&mut self, naming: &Naming, jobs: Vec<JobAnswer>) {
        for job in jobs {
            self.last_job = self.last_job.max(job.id);
            self.traces.last_job = self.traces.last_job.max(job.id);
            for op in &job.ops {
                let names = (op.instance_name.as_deref(), op.network_name.as_deref());
                self.traces.note_job(naming, job.id, names, &op.reason);
            }
            let Some(status) = JobStatus::parse(&job.status) else {
                continue;
            };
            self.jobs.insert(job.id, status);
            if status.is_final() {
                continue;
            }
            for op in job.ops {
                let named = op.name.as_str();
                let instance = op.instance_name.as_deref().or(named);
                let network = op.network_name.as_deref().or(named);
                self.busy_servers
                    .extend(instance.and_then(|name| naming.instance_id(name)));
                self.busy_networks
                    .extend(network.and_then(|name| naming.network_id(name)));
            }
        }
    }

    /// Whether this look knows that `job` has ended: it is there as ended, or not there (any
    /// more) though later ones are.
    pub fn has_ended(&self, job: i64) -> bool {
        match self.jobs.get(&job) {
            Some(status) => status.is_final(),
            None => job <= self.last_job || self.gone.contains(&job),
        }
    }

    /// Asks for the jobs that others wait for and that were not in the queue: such as came
    /// since, and such as are in the archive.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn look_for(
        &mut self,
        rapi: &Rapi,
        jobs: impl Iterator<Item = i64>,
    ) -> Result<(), RapiError> {
        let unknown: BTreeSet<i64> = jobs.filter(|job| !self.jobs.contains_key(job)).collect();
        for job in unknown.into_iter().take(JOBS) {
            let answer = rapi.get(&format!("/2/jobs/{job}"), &[]).await?;
            if answer.get("id").is_none_or(Value::is_null) {
                self.gone.insert(job);
                continue;
            }
            let status = answer.get("status").and_then(Value::as_str);
            if let Some(status) = status.and_then(JobStatus::parse) {
                self.jobs.insert(job, status);
            }
        }
        Ok(())
    }
}

/// An instance as `GET /2/instances/N` has it.
///
/// # Errors
/// It lacks something, or has it in another shape.
pub fn instance(answer: Value) -> Result<Instance, serde_json::Error> {
    Ok(serde_json::from_value::<InstanceAnswer>(answer)?.read())
}

impl InstanceAnswer {
    fn read(self) -> Instance {
        let profile = |key: &str| {
            let start = format!("synnefo:network:{key}:");
            self.tags
                .iter()
                .find_map(|tag| tag.strip_prefix(start.as_str()))
                .map(str::to_owned)
        };
        let at = |column: &[Option<String>], index: usize| column.get(index).cloned().flatten();
        let nics = self
            .nic_macs
            .iter()
            .enumerate()
            .map(|(index, mac)| {
                let name = at(&self.nic_names, index);
                InstanceNic {
                    firewall: name
                        .as_deref()
                        .and_then(profile)
                        .or_else(|| profile(&index.to_string())),
                    name,
                    ip: at(&self.nic_ips, index),
                    mac: mac.clone(),
                    mode: None,
                    network: at(&self.nic_networks, index),
                    link: None,
                    uuid: None,
                }
            })
            .collect();
        let disks = self
            .disk_sizes
            .iter()
            .enumerate()
            .map(|(index, size)| InstanceDisk {
                name: at(&self.disk_names, index),
                size: *size,
                uuid: None,
            })
            .collect();
        Instance {
            running: self.oper_state,
            shape: self.beparams.vcpus.zip(self.beparams.maxmem),
            nics,
            disks,
            rescue: job::boot(&self.hvparams).map(|params| machine::rescues(&params)),
            tags: self.tags,
        }
    }
}
