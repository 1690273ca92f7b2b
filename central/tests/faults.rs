//! Faults with real parts: dispatchers die at random instants, databases and brokers as well, the
//! network is cut; in the end every server is what a model says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::time::Duration;

use harness::netns::Netns;
use harness::rabbitmq::{Place, RabbitMq};
use serde_json::json;
use support::broker::{Agents, Site, isolated, send_to_any, story};
use support::replay::{Chance, script};
use support::stage::{Stage, rows};
use support::until_within;

async fn nap(chance: &mut Chance, most_millis: usize) {
    let millis = u64::try_from(chance.below(most_millis)).unwrap();
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

const KILLS: usize = 200;

#[test]
fn a_dispatcher_killed_at_any_instant_loses_nothing() {
    isolated(async |site| {
        let stage = Stage::new(&site, 60).await;
        let mut chance = Chance::new(7);
        let script = script(&stage.subjects, 4, &mut chance);
        // Once in peace, so that the queues are there.
        let first = stage.dispatcher();
        stage.ready().await;
        drop(first);
        let agents = Agents::connect(stage.broker()).await;
        let portion = script.messages.len().div_ceil(KILLS);
        let mut sent = 0;
        for _ in 0..KILLS {
            sent = agents.send_many(&script.messages, sent, portion).await;
            let dispatcher = stage.dispatcher();
            nap(&mut chance, 1200).await;
            drop(dispatcher);
        }
        assert_eq!(sent, script.messages.len());
        let _last = stage.dispatcher();
        stage.drained().await;
        stage.is_as_expected(&script).await;
    });
}

/// Cuts the way to a port of this namespace, and heals it.
fn cut(site: &Site, port: u16, cut: bool) {
    let script = if cut {
        format!(
            "nft add table inet cut; nft add chain inet cut input '{{ type filter hook input priority 0; }}'; \
             nft add rule inet cut input tcp dport {port} drop; nft add rule inet cut input tcp sport {port} drop"
        )
    } else {
        "nft delete table inet cut".to_owned()
    };
    site.netns.sh(&script).unwrap();
}

#[test]
fn the_network_may_be_cut_between_any_two() {
    isolated(async |site| {
        let stage = Stage::new(&site, 30).await;
        let mut chance = Chance::new(10);
        let script = script(&stage.subjects, 4, &mut chance);
        let _dispatchers = [stage.dispatcher(), stage.dispatcher()];
        stage.ready().await;
        let portion = script.messages.len().div_ceil(3);
        let mut sent = 0;
        // Shorter than the heartbeat's patience, longer than it; and the database.
        for (port, seconds) in [
            (stage.broker().port(), 5),
            (stage.broker().port(), 50),
            (5432, 20),
        ] {
            let agents = Agents::connect(stage.broker()).await;
            sent = agents.send_many(&script.messages, sent, portion).await;
            cut(&site, port, true);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            cut(&site, port, false);
        }
        assert_eq!(sent, script.messages.len());
        stage.drained().await;
        stage.is_as_expected(&script).await;
    });
}

#[test]
fn postgresql_and_the_broker_may_die_at_any_instant() {
    isolated(async |site| {
        let mut stage = Stage::new(&site, 60).await;
        let mut chance = Chance::new(8);
        let script = script(&stage.subjects, 4, &mut chance);
        let _dispatchers = [stage.dispatcher(), stage.dispatcher()];
        stage.ready().await;
        let rounds = 8;
        let portion = script.messages.len().div_ceil(rounds);
        let mut sent = 0;
        for round in 0..rounds {
            let agents = Agents::connect(stage.broker()).await;
            sent = agents.send_many(&script.messages, sent, portion).await;
            nap(&mut chance, 300).await;
            if round % 4 == 3 {
                stage.written();
                stage.brokers[0].kill();
                nap(&mut chance, 1000).await;
                stage.brokers[0].restart().unwrap();
            } else {
                stage.postgres.kill();
                nap(&mut chance, 1000).await;
                stage.postgres.restart().unwrap();
            }
        }
        assert_eq!(sent, script.messages.len());
        stage.drained().await;
        stage.is_as_expected(&script).await;
    });
}

/// How many servers live in [`many_lives_are_replayed_and_a_dispatcher_dies_meanwhile`], unless
/// `SNF_LIVES` says otherwise.
const LIVES: i64 = 300;

#[test]
fn many_lives_are_replayed_and_a_dispatcher_dies_meanwhile() {
    isolated(async |site| {
        let lives = std::env::var("SNF_LIVES").map_or(LIVES, |lives| lives.parse().unwrap());
        let stage = Stage::new(&site, lives).await;
        let mut chance = Chance::new(9);
        let script = script(&stage.subjects, 2, &mut chance);
        let _first = stage.dispatcher();
        let mut second = Some(stage.dispatcher());
        stage.ready().await;
        let agents = Agents::connect(stage.broker()).await;
        let begun = std::time::Instant::now();
        let mut sent = 0;
        while sent < script.messages.len() {
            sent = agents.send_many(&script.messages, sent, 500).await;
            if sent * 2 > script.messages.len() {
                // In the middle of whatever it is at.
                second = None;
            }
        }
        assert!(second.is_none());
        stage.drained().await;
        println!(
            "{} messages about {lives} servers in {:?}",
            sent,
            begun.elapsed()
        );
        stage.is_as_expected(&script).await;
    });
}

#[test]
fn a_removal_that_failed_is_kept_until_the_cluster_can_be_asked() {
    isolated(async |site| {
        let stage = Stage::new(&site, 6).await;
        let port = stage.central.rapi.port();
        let _dispatchers = [stage.dispatcher(), stage.dispatcher()];
        stage.ready().await;
        let agents = Agents::connect(stage.broker()).await;
        let tell = async |operation: &str, id: i64, job: i64, status: Option<&str>| {
            let mut messages = story(operation, &format!("snf-{id}"), job, "");
            if let Some(status) = status {
                messages.last_mut().unwrap()["status"] = json!(status);
            }
            for mut message in messages {
                if let Some(fields) = message.as_object_mut() {
                    fields.remove("instance_nics");
                }
                agents.send("op", &message).await;
            }
        };
        cut(&site, port, true);
        let last = stage.subjects.last().unwrap().create_job;
        for subject in &stage.subjects {
            tell("OP_INSTANCE_CREATE", subject.id, subject.create_job, None).await;
        }
        // The first one is there, and of the others some are gone as well as others.
        let (there, gone) = stage.subjects.split_at(3);
        for subject in there {
            stage.central.rapi.smuggle(&format!("snf-{}", subject.id));
        }
        for (number, subject) in (1..).zip(&stage.subjects) {
            tell(
                "OP_INSTANCE_REMOVE",
                subject.id,
                last + number,
                Some("error"),
            )
            .await;
        }
        // What came later for another one, and for one of those, does not wait.
        let stopped = [&stage.subjects[0], &stage.subjects[1]];
        for (number, subject) in (100..).zip(stopped) {
            let job = last + number;
            tell("OP_INSTANCE_SHUTDOWN", subject.id, job, None).await;
        }
        let database = sea_orm::Database::connect(&stage.postgres.uri())
            .await
            .unwrap();
        let query = "SELECT count(*) FROM servers WHERE state = 'STOPPED'";
        until_within(Duration::from_secs(120), "two to be stopped", async || {
            let count = &rows(&database, query).await[0];
            count.try_get_by_index::<i64>(0).unwrap() == 2
        })
        .await;
        // Longer than the RAPI client's patience, more than once.
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(stage.messages(0).await.unwrap() > 0);
        cut(&site, port, false);
        stage.drained().await;
        let query = "SELECT deleted_at IS NOT NULL FROM servers ORDER BY id";
        let found: Vec<bool> = rows(&database, query)
            .await
            .iter()
            .map(|row| row.try_get_by_index(0).unwrap())
            .collect();
        let expected = [vec![false; there.len()], vec![true; gone.len()]].concat();
        assert_eq!(found, expected);
    });
}

/// Three brokers, each in a namespace of its own, as one cluster.
fn cluster(site: &Site) -> Vec<RabbitMq> {
    let network = &site.netns;
    network
        .sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.77.0.254/24 dev br0")
        .unwrap();
    let mut brokers: Vec<RabbitMq> = Vec::new();
    for number in 1..=3 {
        let place = Netns::new().unwrap();
        let here = format!("mq{number}");
        network.veth(&here, &place, "eth0").unwrap();
        network.ip(&format!("link set {here} master br0")).unwrap();
        let address = format!("10.77.0.{number}");
        place
            .ip(&format!("addr add {address}/24 dev eth0"))
            .unwrap();
        let folder = site.scratch.join(&format!("rabbitmq{number}"));
        let first = brokers.first();
        let place = Place::Netns(&place);
        brokers.push(RabbitMq::start_member(place, &folder, &address, 5672, first).unwrap());
    }
    brokers
}

#[test]
fn a_broker_of_three_may_die() {
    isolated(async |site| {
        let mut stage = Stage::with(&site, cluster(&site), 40).await;
        let mut chance = Chance::new(11);
        let script = script(&stage.subjects, 4, &mut chance);
        let _dispatchers = [stage.dispatcher(), stage.dispatcher()];
        stage.ready().await;
        let members = stage
            .broker()
            .ctl("list_queues name members")
            .unwrap()
            .stdout;
        assert!(
            members
                .lines()
                .filter(|line| line.starts_with("central."))
                .all(|line| line.matches("rabbit@").count() == 3),
            "{members}"
        );
        let urls: Vec<String> = stage.brokers.iter().map(RabbitMq::uri).collect();
        let (before, after) = script.messages.split_at(script.messages.len() / 3);
        send_to_any(&urls, before).await;
        // The one that the queues' leaders are at, as they were declared there first.
        let sending = send_to_any(&urls, after);
        let dying = async {
            nap(&mut chance, 500).await;
            stage.brokers[0].kill();
        };
        tokio::join!(sending, dying);
        stage.drained_at(1).await;
        stage.is_as_expected(&script).await;
    });
}
