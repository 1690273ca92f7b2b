//! Comparing what a cluster has with what the database says of it: pure.

use std::collections::BTreeSet;

use agents::message::{InstanceDisk, InstanceNic};

use super::difference::{Difference, Object, Repair, What};
use super::known::{Known, Network, Nic, Server};
use super::seen::{Instance, Seen};
use crate::dispatch::machine::{BUILD, ERROR, STARTED, STOPPED};
use crate::dispatch::{disks, nics};
use crate::ganeti::label;
use crate::ganeti::naming::Naming;
use crate::ganeti::networks::{ABSENT, ACTIVE, DELETED, ERROR as NETWORK_ERROR};
use crate::model::register::JobStatus;

/// The task of a server that its user has asked to be deleted.
const DESTROYING: &str = "DESTROYING";
/// What Ganeti's tags of firewall profiles begin with.
const FIREWALL_TAG: &str = "synnefo:network:";

/// All differences between a look at a cluster and the database. Whatever a job or an intent is
/// still at is left out: there is no telling what it will be.
pub fn all(naming: &Naming, seen: &Seen, known: &Known) -> Vec<Difference> {
    let mut found = Vec::new();
    for (id, server) in &known.servers {
        if is_busy(*id, server, seen) {
            continue;
        }
        let object = Object::Server(*id);
        match seen.instances.get(id).filter(|_| !server.refused) {
            None => missing(object, server, seen, &mut found),
            Some(instance) => {
                let place = Place {
                    naming,
                    object,
                    seen,
                    known,
                };
                present(&place, server, instance, &mut found);
            }
        }
        task(object, server, &mut found);
    }
    for id in seen.instances.keys() {
        let server = known.servers.get(id);
        if server.is_some_and(|server| !server.refused) || seen.busy_servers.contains(id) {
            continue;
        }
        let before = if known.elsewhere.contains(id) {
            "in another cluster"
        } else if server.is_some() {
            "refused"
        } else {
            "-"
        };
        // Whoever made it: an operator adopts or removes it.
        found.push(Difference {
            object: Object::Server(*id),
            what: What::Orphan,
            before: before.to_owned(),
            after: naming.instance(*id),
            repair: None,
        });
    }
    networks(naming, seen, known, &mut found);
    found
}

fn is_busy(id: i64, server: &Server, seen: &Seen) -> bool {
    server.waiting
        || seen.busy_servers.contains(&id)
        || server.task_job.is_some_and(|job| !seen.has_ended(job))
}

/// A server without an instance.
fn missing(object: Object, server: &Server, seen: &Seen, found: &mut Vec<Difference>) {
    let repair = match server.state.as_str() {
        BUILD => Repair::CreationFailed,
        // That there is none is what the error says.
        ERROR if server.task.as_deref() != Some(DESTROYING) => return,
        _ => Repair::Gone,
    };
    let job = server.task_job.and_then(|job| seen.jobs.get(&job));
    let after = match job {
        Some(status) => format!("no instance; job {}", status.name()),
        None => "no instance".to_owned(),
    };
    found.push(Difference {
        object,
        what: What::Stale,
        before: server.state.clone(),
        after,
        repair: Some(repair),
    });
}

/// What is compared, and among what.
struct Place<'a> {
    naming: &'a Naming,
    object: Object,
    seen: &'a Seen,
    known: &'a Known,
}

fn present(place: &Place<'_>, server: &Server, instance: &Instance, found: &mut Vec<Difference>) {
    let (object, seen) = (place.object, place.seen);
    if server.state == ERROR && server.failed {
        // Half an instance: its user is to delete it.
        return;
    }
    let creation = server.task_job.and_then(|job| seen.jobs.get(&job));
    if server.state == BUILD && matches!(creation, Some(JobStatus::Error | JobStatus::Canceled)) {
        found.push(Difference {
            object,
            what: What::State,
            before: BUILD.to_owned(),
            after: "its creation failed".to_owned(),
            repair: Some(Repair::CreationFailed),
        });
        return;
    }
    if let Some(running) = instance.running {
        let state = if running { STARTED } else { STOPPED };
        if server.state != state {
            found.push(Difference {
                object,
                what: What::State,
                before: server.state.clone(),
                after: state.to_owned(),
                repair: Some(Repair::State(state)),
            });
        }
    }
    if let Some((vcpus, memory)) = instance.shape
        && server.shape != (vcpus, memory)
    {
        let text = |(vcpus, memory): (i64, i64)| format!("{vcpus} vcpus, {memory} MiB");
        found.push(Difference {
            object,
            what: What::Flavor,
            before: text(server.shape),
            after: text((vcpus, memory)),
            repair: Some(Repair::Flavor(vcpus, memory)),
        });
    }
    compare_nics(place, server, &instance.nics, found);
    compare_disks(place, server, &instance.disks, found);
    leftover_tags(object, instance, found);
    compare_labels(object, server, instance, found);
    if let Some(rescue) = instance.rescue
        && rescue != server.rescue
    {
        found.push(Difference {
            object,
            what: What::Rescue,
            before: server.rescue.to_string(),
            after: rescue.to_string(),
            repair: Some(Repair::Rescue(rescue)),
        });
    }
}

/// The text of a NIC that is compared and shown: all that can differ.
struct NicText<'a> {
    name: String,
    index: Option<i32>,
    state: &'a str,
    mac: String,
    ip: &'a str,
    network: String,
    firewall: &'a str,
}

impl NicText<'_> {
    fn text(&self) -> String {
        let index = self
            .index
            .map_or_else(|| "-".to_owned(), |index| index.to_string());
        format!(
            "{index}: {} {} {} {} {} {}",
            self.name, self.state, self.mac, self.ip, self.network, self.firewall
        )
    }
}

/// The profile that a NIC has when nothing else is said.
const NO_FIREWALL: &str = "DISABLED";

fn known_nic(naming: &Naming, nic: &Nic) -> String {
    NicText {
        name: naming.nic(nic.id),
        index: nic.index,
        state: &nic.state,
        mac: nic.mac.clone().unwrap_or_default().to_ascii_lowercase(),
        ip: nic.ipv4.as_deref().unwrap_or("-"),
        network: naming.network(nic.network),
        firewall: nic.firewall.as_deref().unwrap_or(NO_FIREWALL),
    }
    .text()
}

fn seen_nic(place: &Place<'_>, index: usize, known: &Nic, nic: &InstanceNic) -> String {
    let naming = place.naming;
    let networks = &place.known.networks;
    // A network that is not ours cannot be written down: the NIC stays where it was.
    let network = nic
        .network
        .as_deref()
        .and_then(|name| naming.network_id(name))
        .filter(|id| networks.get(id).is_some_and(|network| !network.deleted))
        .unwrap_or(known.network);
    NicText {
        name: naming.nic(known.id),
        index: i32::try_from(index).ok(),
        state: nics::ACTIVE,
        mac: nic.mac.to_ascii_lowercase(),
        ip: nic.ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("-"),
        network: naming.network(network),
        firewall: nic
            .firewall
            .as_deref()
            .and_then(nics::profile_of_tag)
            .unwrap_or(NO_FIREWALL),
    }
    .text()
}

fn compare_nics(
    place: &Place<'_>,
    server: &Server,
    list: &[InstanceNic],
    found: &mut Vec<Difference>,
) {
    let (naming, object) = (place.naming, place.object);
    let mut after = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (index, nic) in list.iter().enumerate() {
        let id = nic.name.as_deref().and_then(|name| naming.nic_id(name));
        let known = id.and_then(|id| server.nics.iter().find(|known| known.id == id));
        match known.filter(|known| ids.insert(known.id)) {
            Some(known) => {
                after.insert(seen_nic(place, index, known, nic));
            }
            None => found.push(Difference {
                object,
                what: What::UnknownNic,
                before: "-".to_owned(),
                after: format!(
                    "{index}: {} {}",
                    nic.name.as_deref().unwrap_or("-"),
                    nic.mac
                ),
                repair: None,
            }),
        }
    }
    let before: BTreeSet<String> = server
        .nics
        .iter()
        .map(|nic| known_nic(naming, nic))
        .collect();
    if before != after {
        found.push(Difference {
            object,
            what: What::Nics,
            before: lines(&before, &after),
            after: lines(&after, &before),
            repair: Some(Repair::Nics(list.to_vec())),
        });
    }
}

/// What is in `these` and not in `others`.
fn lines(these: &BTreeSet<String>, others: &BTreeSet<String>) -> String {
    let own: Vec<&str> = these.difference(others).map(String::as_str).collect();
    if own.is_empty() {
        "-".to_owned()
    } else {
        own.join("; ")
    }
}

fn compare_disks(
    place: &Place<'_>,
    server: &Server,
    list: &[InstanceDisk],
    found: &mut Vec<Difference>,
) {
    let (naming, object) = (place.naming, place.object);
    let text =
        |index: i64, id: i64, size: i64| format!("{index}: {} {size} GiB", naming.volume(id));
    let ours: Vec<(i64, i32)> = server
        .disks
        .iter()
        .map(|disk| (disk.id, disk.index))
        .collect();
    let matched = disks::matched(naming, list, &ours);
    let mut after = BTreeSet::new();
    for (index, (disk, known)) in list.iter().zip(matched).enumerate() {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        match known {
            Some(id) => {
                after.insert(text(index, id, disks::gib(disk.size)));
            }
            None => found.push(Difference {
                object,
                what: What::UnknownDisk,
                before: "-".to_owned(),
                after: format!(
                    "{index}: {} {} MiB",
                    disk.name.as_deref().unwrap_or("-"),
                    disk.size
                ),
                repair: None,
            }),
        }
    }
    let before: BTreeSet<String> = server
        .disks
        .iter()
        .map(|disk| text(disk.index.into(), disk.id, disk.size))
        .collect();
    if before != after {
        found.push(Difference {
            object,
            what: What::Disks,
            before: lines(&before, &after),
            after: lines(&after, &before),
            repair: Some(Repair::Disks(list.to_vec())),
        });
    }
}

/// The tags of firewall profiles of NICs that the instance does not have.
fn leftover_tags(object: Object, instance: &Instance, found: &mut Vec<Difference>) {
    let is_there = |key: &str| {
        let named = |nic: &InstanceNic| nic.name.as_deref() == Some(key);
        let numbered = key
            .parse()
            .is_ok_and(|index: usize| index < instance.nics.len());
        numbered || instance.nics.iter().any(named)
    };
    let left: Vec<String> = instance
        .tags
        .iter()
        .filter(|tag| {
            tag.strip_prefix(FIREWALL_TAG)
                .and_then(|rest| rest.rsplit_once(':'))
                .is_some_and(|(key, _)| !is_there(key))
        })
        .cloned()
        .collect();
    if !left.is_empty() {
        found.push(Difference {
            object,
            what: What::Tags,
            before: "-".to_owned(),
            after: left.join(" "),
            repair: Some(Repair::RemoveTags(left)),
        });
    }
}

fn compare_labels(
    object: Object,
    server: &Server,
    instance: &Instance,
    found: &mut Vec<Difference>,
) {
    let labels: BTreeSet<String> = instance
        .tags
        .iter()
        .filter_map(|tag| label::of_tag(tag))
        .collect();
    if labels != server.labels {
        found.push(Difference {
            object,
            what: What::Labels,
            before: lines(&server.labels, &labels),
            after: lines(&labels, &server.labels),
            repair: Some(Repair::Labels(labels)),
        });
    }
}

/// A user waits for something, and nothing is going on.
fn task(object: Object, server: &Server, found: &mut Vec<Difference>) {
    let Some(task) = &server.task else { return };
    let after = match server.task_job {
        Some(job) => format!("job {job} has ended"),
        None => "no job".to_owned(),
    };
    found.push(Difference {
        object,
        what: What::Task,
        before: task.clone(),
        after,
        repair: Some(Repair::EndTask),
    });
}

fn networks(naming: &Naming, seen: &Seen, known: &Known, found: &mut Vec<Difference>) {
    let is_busy = |id: &i64| {
        let row = known.networks.get(id);
        let is_waited_for = |network: &Network| {
            network.claimed || network.jobs.iter().any(|job| !seen.has_ended(*job))
        };
        seen.busy_networks.contains(id) || row.is_some_and(is_waited_for)
    };
    for (id, network) in &known.networks {
        if !is_busy(id) && !network.deleted {
            live_network(*id, network, seen, found);
        }
    }
    for (id, there) in &seen.networks {
        let row = known.networks.get(id);
        if is_busy(id) || row.is_some_and(|row| !row.deleted) {
            continue;
        }
        found.push(Difference {
            object: Object::Network(*id),
            what: What::Orphan,
            before: if row.is_some() { "deleted" } else { "-" }.to_owned(),
            after: naming.network(*id),
            // One with NICs in it is a riddle for a person, and so is one that this database has
            // never brought into the cluster.
            repair: row
                .filter(|row| row.state.is_some() && !there.used)
                .map(|_| Repair::RemoveNetwork(there.groups.iter().cloned().collect())),
        });
    }
    for (id, network) in &known.networks {
        let gone = network.deleted && !is_busy(id) && !seen.networks.contains_key(id);
        let state = network.state.as_deref();
        if gone && state.is_some_and(|state| state != DELETED) {
            found.push(Difference {
                object: Object::Network(*id),
                what: What::State,
                before: state.unwrap_or_default().to_owned(),
                after: DELETED.to_owned(),
                repair: Some(Repair::NetworkState(DELETED)),
            });
        }
    }
}

fn live_network(id: i64, network: &Network, seen: &Seen, found: &mut Vec<Difference>) {
    let state = network.state.as_deref();
    let before = state.unwrap_or("-").to_owned();
    let object = Object::Network(id);
    let mut push = |what, after: String, repair| {
        found.push(Difference {
            object,
            what,
            before: before.clone(),
            after,
            repair: Some(repair),
        });
    };
    match seen.networks.get(&id) {
        // It comes again when a NIC needs it. A failure stays to be seen until then.
        None if !matches!(state, None | Some(ABSENT | DELETED | NETWORK_ERROR)) => {
            push(
                What::Missing,
                "not there".to_owned(),
                Repair::NetworkState(ABSENT),
            );
        }
        None => {}
        Some(there) => {
            let lacking: Vec<&str> = seen
                .groups
                .difference(&there.groups)
                .map(String::as_str)
                .collect();
            if lacking.is_empty() {
                if state != Some(ACTIVE) {
                    push(What::State, ACTIVE.to_owned(), Repair::NetworkState(ACTIVE));
                }
            } else {
                push(
                    What::Unconnected,
                    format!("not in {}", lacking.join(", ")),
                    Repair::ConnectNetwork,
                );
            }
        }
    }
}
