//! Properties of the comparison and of when it is acted on.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use agents::ganeti::names::Names;
use agents::message::{InstanceDisk, InstanceNic};
use proptest::prelude::*;

use super::compare;
use super::difference::{Difference, Object, Repair, What};
use super::known::{self, Known};
use super::memory::{Limit, Memory};
use super::seen::{self, Seen};
use crate::dispatch::machine::{BUILD, ERROR, STARTED, STOPPED};
use crate::dispatch::{disks, nics};
use crate::ganeti::label;
use crate::ganeti::naming::Naming;
use crate::ganeti::traces::Traces;
use crate::model::register::JobStatus;

fn naming() -> Naming {
    Naming::new(Names::new("snf").unwrap())
}

/// A look at a cluster and a database that have hardly anything to do with each other.
#[derive(Debug, Clone)]
struct World {
    seen: Seen,
    known: Known,
}

fn seen_nic() -> impl Strategy<Value = InstanceNic> {
    let name = prop_oneof![
        4 => (1..6_i64).prop_map(|id| Some(format!("snf-nic-{id}"))),
        1 => Just(Some("eth0".to_owned())),
        1 => Just(None),
    ];
    let ip = prop_oneof![
        Just(None),
        (2..5_u8).prop_map(|last| Some(format!("10.0.0.{last}")))
    ];
    let network = prop_oneof![
        (1..4_i64).prop_map(|id| Some(format!("snf-net-{id}"))),
        Just(Some("lan".to_owned())),
        Just(None),
    ];
    let firewall = prop_oneof![
        Just(None),
        Just(Some("protected".to_owned())),
        Just(Some("unprotected".to_owned())),
        Just(Some("perforated".to_owned())),
    ];
    (name, ip, network, firewall, 0..3_u8).prop_map(|(name, ip, network, firewall, mac)| {
        InstanceNic {
            ip,
            name,
            mac: format!("AA:00:00:00:00:{mac:02x}"),
            mode: None,
            network,
            link: None,
            uuid: None,
            firewall,
        }
    })
}

fn seen_disk() -> impl Strategy<Value = InstanceDisk> {
    let name = prop_oneof![
        (1..4_i64).prop_map(|id| Some(format!("snf-vol-{id}"))),
        Just(None),
    ];
    (name, prop_oneof![Just(1024_u64), Just(2048)]).prop_map(|(name, size)| InstanceDisk {
        name,
        size,
        uuid: None,
    })
}

fn instance() -> impl Strategy<Value = seen::Instance> {
    (
        prop_oneof![Just(None), any::<bool>().prop_map(Some)],
        prop_oneof![Just(None), (1..3_i64).prop_map(|vcpus| Some((vcpus, 128)))],
        prop::collection::vec(seen_nic(), 0..3),
        prop::collection::vec(seen_disk(), 0..3),
        prop::collection::vec(
            prop_oneof![
                (0..6_i64).prop_map(|nic| format!("synnefo:network:snf-nic-{nic}:protected")),
                prop::sample::select(vec!["a", "b"]).prop_map(|name| label::tag(name).unwrap()),
            ],
            0..3,
        ),
        any::<Option<bool>>(),
    )
        .prop_map(
            |(running, shape, nics, disks, tags, rescue)| seen::Instance {
                running,
                shape,
                nics,
                disks,
                tags,
                rescue,
            },
        )
}

fn known_nic() -> impl Strategy<Value = known::Nic> {
    (1..6_i64, 1..4_i64, 0..3_i32, 2..5_u8, any::<bool>()).prop_map(
        |(id, network, index, last, active)| known::Nic {
            id,
            network,
            state: if active { nics::ACTIVE } else { nics::BUILD }.to_owned(),
            index: Some(index),
            mac: active.then(|| format!("aa:00:00:00:00:{last:02x}")),
            ipv4: Some(format!("10.0.0.{last}")),
            firewall: active.then(|| "ENABLED".to_owned()),
        },
    )
}

fn server() -> impl Strategy<Value = known::Server> {
    (
        prop::sample::select(vec![BUILD, STARTED, STOPPED, ERROR]),
        any::<bool>(),
        prop::sample::select(vec![None, Some("STARTING"), Some("DESTROYING")]),
        prop::option::of(1..9_i64),
        prop::bool::weighted(0.1),
        1..3_i64,
        prop::collection::vec(known_nic(), 0..3),
        prop::collection::vec((1..4_i64, 0..3_i32, 1..3_i64), 0..3),
        (
            prop::collection::btree_set(prop::sample::select(vec!["a", "b"]), 0..2),
            any::<bool>(),
        ),
    )
        .prop_map(
            |(state, failed, task, task_job, waiting, vcpus, mut nics, disks, more)| {
                let (labels, rescue) = more;
                let mut ids = HashSet::new();
                nics.retain(|nic| ids.insert(nic.id));
                let mut ids = HashSet::new();
                known::Server {
                    state: state.to_owned(),
                    failed: failed && state == ERROR,
                    refused: false,
                    task: task.map(str::to_owned),
                    task_job,
                    waiting,
                    shape: (vcpus, 128),
                    nics,
                    disks: disks
                        .into_iter()
                        .map(|(id, index, size)| known::Disk { id, index, size })
                        .filter(|disk| ids.insert(disk.id))
                        .collect(),
                    labels: labels.into_iter().map(str::to_owned).collect(),
                    rescue,
                }
            },
        )
}

fn world() -> impl Strategy<Value = World> {
    let groups = || prop::collection::btree_set(prop::sample::select(vec!["a", "b"]), 0..3);
    let names = |set: BTreeSet<&str>| set.into_iter().map(str::to_owned).collect();
    let networks = prop::collection::btree_map(
        1..6_i64,
        (groups(), any::<bool>()).prop_map(move |(groups, used)| seen::Network {
            groups: names(groups),
            used,
        }),
        0..4,
    );
    let states = prop::option::of(prop::sample::select(vec![
        "ABSENT", "PENDING", "ACTIVE", "ERROR", "DELETED",
    ]));
    let known_networks = prop::collection::btree_map(
        1..6_i64,
        (
            any::<bool>(),
            states,
            prop::collection::vec(1..9_i64, 0..2),
            prop::bool::weighted(0.1),
        )
            .prop_map(|(deleted, state, jobs, claimed)| known::Network {
                deleted,
                jobs: if state.is_some() { jobs } else { Vec::new() },
                state: state.map(str::to_owned),
                claimed,
            }),
        0..4,
    );
    let statuses = vec![JobStatus::Running, JobStatus::Success, JobStatus::Error];
    let jobs = prop::collection::hash_map(1..9_i64, prop::sample::select(statuses), 0..6);
    (
        prop::collection::btree_map(1..7_i64, instance(), 0..6),
        prop::collection::btree_map(1..7_i64, server(), 0..6),
        prop::collection::hash_set(1..9_i64, 0..2),
        (networks, known_networks),
        (jobs, prop::collection::hash_set(1..7_i64, 0..2)),
    )
        .prop_map(
            |(instances, servers, elsewhere, (networks, known_networks), (jobs, busy))| World {
                seen: Seen {
                    last_job: 6,
                    jobs,
                    gone: HashSet::new(),
                    busy_servers: busy.clone(),
                    busy_networks: busy,
                    instances,
                    networks,
                    groups: ["a", "b"].map(str::to_owned).into(),
                    traces: Traces::default(),
                },
                known: Known {
                    elsewhere: elsewhere
                        .into_iter()
                        .filter(|id| !servers.contains_key(id))
                        .collect(),
                    servers,
                    networks: known_networks,
                },
            },
        )
}

/// What a repair does, told once more and simply.
fn apply(world: &mut World, difference: &Difference) {
    let naming = naming();
    let repair = difference.repair.clone().unwrap();
    match (difference.object, repair) {
        (Object::Server(id), Repair::Gone) => drop(world.known.servers.remove(&id)),
        (Object::Server(id), Repair::RemoveTags(tags)) => {
            let instance = world.seen.instances.get_mut(&id).unwrap();
            instance.tags.retain(|tag| !tags.contains(tag));
        }
        (Object::Server(id), repair) => {
            // An earlier repair may have removed it.
            let Some(server) = world.known.servers.get_mut(&id) else {
                return;
            };
            match repair {
                Repair::CreationFailed => {
                    server.state = ERROR.to_owned();
                    server.failed = true;
                    (server.task, server.task_job) = (None, None);
                }
                Repair::State(state) => server.state = state.to_owned(),
                Repair::Flavor(vcpus, memory) => server.shape = (vcpus, memory),
                Repair::Labels(list) => server.labels = list,
                Repair::Rescue(rescue) => server.rescue = rescue,
                Repair::EndTask => (server.task, server.task_job) = (None, None),
                Repair::Nics(list) => {
                    let mut new = Vec::new();
                    for (index, nic) in list.iter().enumerate() {
                        let id = nic.name.as_deref().and_then(|name| naming.nic_id(name));
                        let old = server.nics.iter().find(|old| Some(old.id) == id);
                        let Some(old) = old else { continue };
                        if new.iter().any(|new: &known::Nic| new.id == old.id) {
                            continue;
                        }
                        let network = nic
                            .network
                            .as_deref()
                            .and_then(|name| naming.network_id(name));
                        let live = |id: &i64| {
                            world
                                .known
                                .networks
                                .get(id)
                                .is_some_and(|network| !network.deleted)
                        };
                        new.push(known::Nic {
                            id: old.id,
                            network: network.filter(live).unwrap_or(old.network),
                            state: nics::ACTIVE.to_owned(),
                            index: i32::try_from(index).ok(),
                            mac: Some(nic.mac.to_lowercase()),
                            ipv4: nic.ip.clone(),
                            firewall: match nic.firewall.as_deref() {
                                Some("protected") => Some("ENABLED".to_owned()),
                                Some("unprotected") => Some("DISABLED".to_owned()),
                                _ => None,
                            },
                        });
                    }
                    server.nics = new;
                }
                Repair::Disks(list) => {
                    let ours: Vec<_> = server
                        .disks
                        .iter()
                        .map(|disk| (disk.id, disk.index))
                        .collect();
                    let matched = disks::matched(&naming, &list, &ours);
                    server.disks = matched
                        .into_iter()
                        .zip(&list)
                        .enumerate()
                        .filter_map(|(index, (id, disk))| {
                            Some(known::Disk {
                                id: id?,
                                index: i32::try_from(index).unwrap(),
                                size: i64::try_from(disk.size / 1024).unwrap(),
                            })
                        })
                        .collect();
                }
                other => panic!("{other:?}"),
            }
        }
        (Object::Network(id), Repair::RemoveNetwork(groups)) => {
            let network = world.seen.networks.remove(&id).unwrap();
            assert!(!network.used);
            assert_eq!(network.groups, groups.into_iter().collect());
        }
        (Object::Network(id), Repair::NetworkState(state)) => {
            let network = world.known.networks.get_mut(&id).unwrap();
            network.state = Some(state.to_owned());
            network.jobs.clear();
        }
        (Object::Network(id), Repair::ConnectNetwork) => {
            let groups = world.seen.groups.clone();
            world.seen.networks.get_mut(&id).unwrap().groups = groups;
            let network = world.known.networks.get_mut(&id).unwrap();
            network.state = Some("ACTIVE".to_owned());
            network.jobs.clear();
        }
        (object, repair) => panic!("{object}: {repair:?}"),
    }
}

fn repairable(world: &World) -> Vec<Difference> {
    let mut differences = compare::all(&naming(), &world.seen, &world.known);
    differences.retain(|difference| difference.repair.is_some());
    differences
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// What is repaired stays repaired. A network that is removed from the cluster leaves its
    /// row to be written down in the next pass, hence twice.
    #[test]
    fn repairs_leave_nothing_to_repair(world in world()) {
        let mut world = world;
        for _ in 0..2 {
            for difference in repairable(&world) {
                apply(&mut world, &difference);
            }
        }
        prop_assert_eq!(repairable(&world), vec![]);
    }

    /// What a job is at, or what somebody has just asked for, is left alone.
    #[test]
    fn what_is_busy_is_left_alone(world in world()) {
        for difference in compare::all(&naming(), &world.seen, &world.known) {
            match difference.object {
                Object::Server(id) => {
                    prop_assert!(!world.seen.busy_servers.contains(&id));
                    if let Some(server) = world.known.servers.get(&id) {
                        prop_assert!(!server.waiting);
                        let job = server.task_job.unwrap_or(0);
                        prop_assert!(world.seen.jobs.get(&job) != Some(&JobStatus::Running));
                        prop_assert!(job <= 6 || world.seen.jobs.contains_key(&job));
                    }
                }
                Object::Network(id) => {
                    prop_assert!(!world.seen.busy_networks.contains(&id));
                    prop_assert!(!world.known.networks.get(&id).is_some_and(|row| row.claimed));
                }
                other => prop_assert!(false, "{}", other),
            }
        }
    }

    /// A server that is in both is never removed from either, whatever else differs; and what
    /// another cluster has is not touched at all.
    #[test]
    fn what_both_have_is_never_removed(world in world()) {
        for difference in repairable(&world) {
            if let Object::Server(id) = difference.object {
                let both = world.known.servers.contains_key(&id)
                    && world.seen.instances.contains_key(&id);
                prop_assert!(!both || !difference.repair.unwrap().destroys());
                prop_assert!(!world.known.elsewhere.contains(&id));
            }
        }
    }

    /// Whatever passes show: only what the pass before has shown as well is acted on, and
    /// never for more servers than the limit allows.
    #[test]
    fn only_what_is_seen_twice_is_acted_on(
        worlds in prop::collection::vec(world(), 1..4),
        order in prop::collection::vec(0..4_usize, 1..12),
        percent in 0..=100_u8,
        few in 0..4_usize,
    ) {
        let limit = Limit { percent, few };
        let mut memory = Memory::default();
        let mut before: Vec<Difference> = Vec::new();
        for index in order {
            let world = &worlds[index % worlds.len()];
            let now = compare::all(&naming(), &world.seen, &world.known);
            let servers = world.known.servers.len();
            let plan = memory.pass(now.clone(), servers, limit);
            for due in &plan.due {
                prop_assert!(before.contains(due));
                prop_assert!(due.repair.is_some());
            }
            let changed: BTreeSet<String> = plan
                .due
                .iter()
                .filter(|due| matches!(due.object, Object::Server(_)))
                .map(|due| due.object.to_string())
                .collect();
            prop_assert!(changed.len() <= few.max(servers * usize::from(percent) / 100));
            prop_assert_eq!(plan.due.len() + plan.waiting.len(), now.len());
            if plan.stopped.is_some() {
                prop_assert!(plan.due.is_empty());
            }
            before = now;
        }
    }
}

/// One server and its instance, equal.
fn pair() -> World {
    let nic = InstanceNic {
        ip: Some("10.0.0.2".to_owned()),
        name: Some("snf-nic-1".to_owned()),
        mac: "aa:00:00:00:00:01".to_owned(),
        mode: None,
        network: Some("snf-net-1".to_owned()),
        link: None,
        uuid: None,
        firewall: None,
    };
    let instance = seen::Instance {
        running: Some(true),
        shape: Some((1, 128)),
        nics: vec![nic],
        disks: vec![InstanceDisk {
            name: Some("snf-vol-1".to_owned()),
            size: 1024,
            uuid: None,
        }],
        tags: Vec::new(),
        rescue: Some(false),
    };
    let server = known::Server {
        state: STARTED.to_owned(),
        shape: (1, 128),
        nics: vec![known::Nic {
            id: 1,
            network: 1,
            state: nics::ACTIVE.to_owned(),
            index: Some(0),
            mac: Some("aa:00:00:00:00:01".to_owned()),
            ipv4: Some("10.0.0.2".to_owned()),
            firewall: None,
        }],
        disks: vec![known::Disk {
            id: 1,
            index: 0,
            size: 1,
        }],
        ..known::Server::default()
    };
    let network = |state: Option<&str>| known::Network {
        state: state.map(str::to_owned),
        ..known::Network::default()
    };
    World {
        seen: Seen {
            last_job: 10,
            instances: BTreeMap::from([(1, instance)]),
            networks: BTreeMap::from([(
                1,
                seen::Network {
                    groups: BTreeSet::from(["default".to_owned()]),
                    used: true,
                },
            )]),
            groups: BTreeSet::from(["default".to_owned()]),
            ..Seen::default()
        },
        known: Known {
            servers: BTreeMap::from([(1, server)]),
            networks: BTreeMap::from([(1, network(Some("ACTIVE"))), (2, network(None))]),
            ..Known::default()
        },
    }
}

fn found(world: &World) -> Vec<(What, Option<Repair>)> {
    compare::all(&naming(), &world.seen, &world.known)
        .into_iter()
        .map(|difference| (difference.what, difference.repair))
        .collect()
}

#[test]
fn what_is_equal_does_not_differ() {
    assert_eq!(found(&pair()), vec![]);
}

#[test]
fn every_kind_of_difference_is_found() {
    let differs = |change: fn(&mut World)| {
        let mut world = pair();
        change(&mut world);
        found(&world)
    };
    fn own(world: &mut World) -> &mut known::Server {
        world.known.servers.get_mut(&1).unwrap()
    }
    fn theirs(world: &mut World) -> &mut seen::Instance {
        world.seen.instances.get_mut(&1).unwrap()
    }
    assert_eq!(
        differs(|world| world.seen.instances.clear()),
        [(What::Stale, Some(Repair::Gone))]
    );
    // A failed creation without its message, and one that has its message.
    assert_eq!(
        differs(|world| {
            own(world).state = BUILD.to_owned();
            world.seen.instances.clear();
        }),
        [(What::Stale, Some(Repair::CreationFailed))]
    );
    assert_eq!(
        differs(|world| {
            own(world).state = ERROR.to_owned();
            world.seen.instances.clear();
        }),
        []
    );
    assert_eq!(
        differs(|world| world.known.servers.clear()),
        [(What::Orphan, None)]
    );
    // An instance of the name of a server that was never made is none of its.
    assert_eq!(
        differs(|world| {
            own(world).state = ERROR.to_owned();
            own(world).refused = true;
        }),
        [(What::Orphan, None)]
    );
    assert_eq!(
        differs(|world| {
            world.known.servers.clear();
            world.known.elsewhere.insert(1);
        }),
        [(What::Orphan, None)]
    );
    assert_eq!(
        differs(|world| theirs(world).running = Some(false)),
        [(What::State, Some(Repair::State(STOPPED)))]
    );
    assert_eq!(differs(|world| theirs(world).running = None), []);
    assert_eq!(
        differs(|world| theirs(world).shape = Some((2, 256))),
        [(What::Flavor, Some(Repair::Flavor(2, 256)))]
    );
    for change in [
        (|world| theirs(world).nics.clear()) as fn(&mut World),
        |world| theirs(world).nics[0].ip = Some("10.0.0.9".to_owned()),
        |world| theirs(world).nics[0].mac = "aa:00:00:00:00:09".to_owned(),
        |world| theirs(world).nics[0].network = Some("snf-net-2".to_owned()),
        |world| theirs(world).nics[0].firewall = Some("protected".to_owned()),
        |world| own(world).nics[0].state = nics::BUILD.to_owned(),
        |world| own(world).nics[0].index = Some(1),
    ] {
        let found = differs(change);
        assert!(
            matches!(found.as_slice(), [(What::Nics, Some(Repair::Nics(_)))]),
            "{found:?}"
        );
    }
    let unknown = differs(|world| {
        let mut nic = theirs(world).nics[0].clone();
        nic.name = None;
        theirs(world).nics.push(nic);
    });
    assert_eq!(unknown, [(What::UnknownNic, None)]);
    for change in [
        (|world| theirs(world).disks[0].size = 2048) as fn(&mut World),
        |world| theirs(world).disks.clear(),
    ] {
        let found = differs(change);
        assert!(
            matches!(found.as_slice(), [(What::Disks, Some(Repair::Disks(_)))]),
            "{found:?}"
        );
    }
    let left = "synnefo:network:snf-nic-7:limited".to_owned();
    assert_eq!(
        differs(|world| theirs(world).tags = vec![
            "synnefo:network:snf-nic-7:limited".to_owned(),
            "synnefo:network:snf-nic-1:unknown".to_owned(),
            "mine".to_owned()
        ]),
        [(What::Tags, Some(Repair::RemoveTags(vec![left])))]
    );
    assert_eq!(
        differs(|world| {
            own(world).task = Some("STOPPING".to_owned());
            own(world).task_job = Some(9);
        }),
        [(What::Task, Some(Repair::EndTask))]
    );
    assert_eq!(
        differs(|world| {
            own(world).task = Some("STOPPING".to_owned());
            own(world).task_job = Some(11);
        }),
        []
    );
    assert_eq!(
        differs(|world| world.seen.networks.clear()),
        [(What::Missing, Some(Repair::NetworkState("ABSENT")))]
    );
    assert_eq!(
        differs(|world| world.seen.groups.extend(["other".to_owned()])),
        [(What::Unconnected, Some(Repair::ConnectNetwork))]
    );
    assert_eq!(
        differs(|world| world.known.networks.get_mut(&1).unwrap().state = None),
        [(What::State, Some(Repair::NetworkState("ACTIVE")))]
    );
    // A network in use is not removed, not even when nobody here knows it.
    assert_eq!(
        differs(|world| drop(world.known.networks.remove(&1))),
        [(What::Orphan, None)]
    );
    let groups = vec!["default".to_owned()];
    assert_eq!(
        differs(|world| {
            world.known.networks.get_mut(&1).unwrap().deleted = true;
            world.seen.networks.get_mut(&1).unwrap().used = false;
            theirs(world).nics[0].network = None;
        }),
        [(What::Orphan, Some(Repair::RemoveNetwork(groups)))]
    );
}

#[test]
fn a_limit_is_a_share_and_a_floor() {
    let limit = Limit {
        percent: 10,
        few: 3,
    };
    assert_eq!(
        [0, 5, 39, 40, 5000].map(|servers| limit.of(servers)),
        [3, 3, 3, 4, 500]
    );
}

#[test]
fn too_much_at_once_stops_the_pass() {
    let mut worlds = pair();
    let server = worlds.known.servers.get(&1).unwrap().clone();
    for id in 2..=20 {
        worlds.known.servers.insert(id, server.clone());
    }
    let limit = Limit {
        percent: 10,
        few: 3,
    };
    let differences = compare::all(&naming(), &worlds.seen, &worlds.known);
    assert_eq!(differences.len(), 19);
    let mut memory = Memory::default();
    let first = memory.pass(differences.clone(), 20, limit);
    assert_eq!((first.due.len(), first.stopped), (0, None));
    let second = memory.pass(differences, 20, limit);
    assert_eq!((second.due.len(), second.stopped), (0, Some((19, 3))));
}
