//! Traces in a cluster of the databases that use it: the numbers in names, the marks of intents
//! in jobs, the stamps among its tags.

use serde::Deserialize;
use serde_json::Value;

use super::intent;
use super::naming::Naming;
use super::rapi::{Rapi, RapiError};
use super::stamp::Stamp;
use crate::model::ids::Ids;

/// A job that an intent became, as its reason trail says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub job: i64,
    pub intent: i64,
    /// When the intent was written.
    pub created_at: i64,
}

/// The traces that one look at a cluster found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// The highest numbers in names of what is there.
    pub there: Ids,
    /// The same, and those of what jobs are about.
    pub highest: Ids,
    pub asked: Vec<Asked>,
    /// The highest number of a job in the queue.
    pub last_job: i64,
    /// The stamps of this prefix, whosever they are.
    pub stamps: Vec<Stamp>,
    /// The identity of the cluster; none: it does not say.
    pub cluster_uuid: Option<String>,
}

#[derive(Deserialize)]
struct JobAnswer {
    id: i64,
    #[serde(default)]
    ops: Vec<OpAnswer>,
}

#[derive(Deserialize)]
struct OpAnswer {
    #[serde(default)]
    instance_name: Option<String>,
    #[serde(default)]
    network_name: Option<String>,
    #[serde(default)]
    reason: Value,
}

#[derive(Deserialize)]
struct InstanceAnswer {
    name: String,
    #[serde(rename = "nic.names", default)]
    nic_names: Vec<Option<String>>,
    #[serde(rename = "disk.names", default)]
    disk_names: Vec<Option<String>>,
}

#[derive(Deserialize)]
struct NetworkAnswer {
    name: String,
}

impl Traces {
    /// Asks a cluster.
    ///
    /// # Errors
    /// One of the answers did not come, or is not what it should be.
    pub async fn look(rapi: &Rapi, naming: &Naming) -> Result<Self, RapiError> {
        let bulk = [("bulk", "1")];
        let mut traces = Self::default();
        traces.note_info(naming, &rapi.get("/2/info", &[]).await?);
        for job in rapi.read::<Vec<JobAnswer>>("/2/jobs", &bulk).await? {
            traces.last_job = traces.last_job.max(job.id);
            for op in job.ops {
                let names = (op.instance_name.as_deref(), op.network_name.as_deref());
                traces.note_job(naming, job.id, names, &op.reason);
            }
        }
        for network in rapi
            .read::<Vec<NetworkAnswer>>("/2/networks", &bulk)
            .await?
        {
            traces.note_network(naming, &network.name);
        }
        for instance in rapi
            .read::<Vec<InstanceAnswer>>("/2/instances", &bulk)
            .await?
        {
            let nics = instance.nic_names.iter().flatten().map(String::as_str);
            let disks = instance.disk_names.iter().flatten().map(String::as_str);
            traces.note_instance(naming, &instance.name, nics, disks);
        }
        Ok(traces)
    }

    /// Notes what the cluster says of itself (`GET /2/info`).
    pub fn note_info(&mut self, naming: &Naming, info: &Value) {
        self.cluster_uuid = info.get("uuid").and_then(Value::as_str).map(str::to_owned);
        let tags = info.get("tags").and_then(Value::as_array);
        let tags = tags.into_iter().flatten().filter_map(Value::as_str);
        self.stamps
            .extend(tags.filter_map(|tag| Stamp::parse(tag, naming.prefix())));
    }

    /// Notes an operation of a job: the instance and the network that it is about, and its
    /// reason trail.
    pub fn note_job(
        &mut self,
        naming: &Naming,
        job: i64,
        (instance, network): (Option<&str>, Option<&str>),
        reason: &Value,
    ) {
        let highest = &mut self.highest;
        let server = instance.and_then(|name| naming.instance_id(name));
        Ids::note(&mut highest.server, server);
        let network = network.and_then(|name| naming.network_id(name));
        Ids::note(&mut highest.network, network);
        let trail = reason.as_array().into_iter().flatten();
        let texts = trail.filter_map(|entry| entry.get(1)?.as_str());
        self.asked.extend(
            texts
                .filter_map(|text| intent::of_mark(naming.prefix(), text))
                .map(|(intent, created_at)| Asked {
                    job,
                    intent,
                    created_at,
                }),
        );
    }

    /// Notes a network that is there.
    pub fn note_network(&mut self, naming: &Naming, name: &str) {
        Ids::note(&mut self.there.network, naming.network_id(name));
        self.highest = self.highest.max(self.there);
    }

    /// Notes an instance that is there, whosever it is.
    pub fn note_instance<'a>(
        &mut self,
        naming: &Naming,
        name: &str,
        nics: impl Iterator<Item = &'a str>,
        disks: impl Iterator<Item = &'a str>,
    ) {
        let there = &mut self.there;
        Ids::note(&mut there.server, naming.instance_id(name));
        for nic in nics {
            Ids::note(&mut there.nic, naming.nic_id(nic));
        }
        for disk in disks {
            Ids::note(&mut there.volume, naming.volume_id(disk));
        }
        self.highest = self.highest.max(self.there);
    }

    /// The numbers that are never to be given out again.
    pub fn floor(&self) -> Ids {
        let stamps = self.stamps.iter().map(|stamp| stamp.reserved);
        stamps.fold(self.highest, Ids::max)
    }
}
