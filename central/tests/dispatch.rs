//! The dispatcher with a real broker: messages that an eventd made of recorded jobs go through
//! the exchange, and what the API shows follows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use support::broker::{Agents, isolated, recorded, story};
use support::until;

fn progress(instance: &str, percent: f64) -> Value {
    json!({"type": "image-copy-progress", "event_time": [4_000_000_000_u64, 0],
           "instance": instance, "progress": percent})
}

#[test]
fn a_server_lives_as_the_messages_say() {
    isolated(async |site| {
        // The broker comes later than central: that is no reason not to serve.
        let central = site.central().await;
        let id = central.create("web", &["bridged"]).await;
        let instance = format!("snf-{id}");
        let create_job = central.rapi.last().job.unwrap();
        let broker = site.broker();
        let agents = Agents::connect(&broker).await;
        until("the dispatcher to declare its queues", async || {
            let listed = broker.ctl("list_queues name type").unwrap().stdout;
            [
                "op",
                "network",
                "net",
                "progress",
                "cluster",
                "heartbeat",
                "dead",
            ]
            .iter()
            .all(|word| listed.contains(&format!("central.snf.{word}\tquorum")))
        })
        .await;

        // Progress of a node whose clock is half a century ahead.
        let create = story("OP_INSTANCE_CREATE", &instance, create_job, "10.66.1.2");
        let (success, before) = create.split_last().unwrap();
        for message in before {
            agents.send("op", message).await;
        }
        for percent in [10.0, 42.9, 30.0] {
            agents.send("progress", &progress(&instance, percent)).await;
        }
        let field = async |name: &str| central.server(&id).await[name].take();
        until("the progress", async || field("progress").await == 42).await;
        assert_eq!(field("status").await, "BUILD");
        agents.send("op", success).await;
        until("ACTIVE", async || field("status").await == "ACTIVE").await;
        let server = central.server(&id).await;
        assert_eq!(server["progress"], 100);
        assert_eq!(server["SNF:task_state"], "");
        let mac = "aa:00:00:e1:87:fc";
        assert_eq!(
            server["addresses"],
            json!({"bridged": [
                {"version": 4, "addr": "10.66.1.2", "OS-EXT-IPS:type": "fixed",
                 "OS-EXT-IPS-MAC:mac_addr": mac},
                {"version": 6, "addr": "fd66:1::a800:ff:fee1:87fc", "OS-EXT-IPS:type": "fixed",
                 "OS-EXT-IPS-MAC:mac_addr": mac},
            ]})
        );
        let ports = central.get("/network/v2.0/ports").await.expect(200);
        assert_eq!(ports["ports"][0]["status"], "ACTIVE");
        assert_eq!(ports["ports"][0]["mac_address"], mac);

        // Stop, start, reboot.
        let path = format!("/compute/v2.0/servers/{id}");
        let action = format!("{path}/action");
        for (body, operation, during, after) in [
            (
                json!({"os-stop": null}),
                "OP_INSTANCE_SHUTDOWN",
                "ACTIVE",
                "SHUTOFF",
            ),
            (
                json!({"os-start": null}),
                "OP_INSTANCE_STARTUP",
                "SHUTOFF",
                "ACTIVE",
            ),
            (
                json!({"reboot": {"type": "HARD"}}),
                "OP_INSTANCE_REBOOT",
                "REBOOT",
                "ACTIVE",
            ),
        ] {
            central.post(&action, body.clone()).await.expect(202);
            assert_eq!(field("status").await, during, "{body}");
            // While one thing is done, no other is begun.
            central.post(&action, body).await.fault(409, "conflict");
            let job = central.rapi.last().job.unwrap();
            for message in story(operation, &instance, job, "10.66.1.2") {
                agents.send("op", &message).await;
            }
            until(after, async || {
                field("status").await == after && field("SNF:task_state").await == ""
            })
            .await;
        }
        let cyclades = central.get(&format!("/cyclades{path}")).await.expect(200);
        assert!(
            cyclades["server"]["addresses"]["1"].is_array(),
            "{cyclades}"
        );

        // The broker dies and comes back, with a message that it had kept meanwhile.
        drop(agents);
        // RabbitMQ writes down which log is which queue's some seconds after the queue is made;
        // a quorum queue that is younger than that when its broker is killed never has a leader
        // again (3.10). Ours are old in this story.
        let written = broker
            .ctl("eval [dets:sync(Table)||Table<-dets:all()].")
            .unwrap();
        assert!(written.stdout.contains("ok"), "{written:?}");
        let mut broker = broker;
        broker.kill();
        central.get(&path).await.expect(200);
        central.delete(&path).await.expect(204);
        let job = central.rapi.last().job.unwrap();
        broker.restart().unwrap();
        let agents = Agents::connect(&broker).await;
        for message in story("OP_INSTANCE_REMOVE", &instance, job, "") {
            agents.send("op", &message).await;
        }
        until("DELETED", async || field("status").await == "DELETED").await;
        let servers = central.get("/compute/v2.0/servers").await.expect(200);
        assert_eq!(servers, json!({"servers": []}));
        let ports = central.get("/network/v2.0/ports").await.expect(200);
        assert_eq!(ports, json!({"ports": []}));
        // A late repetition of its youth does not bring it back.
        agents.send("op", success).await;
        // Its address is free again.
        central.create("next", &["bridged"]).await;
        assert_eq!(central.rapi.last().body["nics"][0]["ip"], "10.66.1.2");
        assert_eq!(field("status").await, "DELETED");
    });
}

#[test]
fn a_queue_without_a_leader_keeps_no_other_waiting() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        let id = central.create("web", &["bridged"]).await;
        let job = central.rapi.last().job.unwrap();
        let served = async |queue: &str| {
            let listed = broker.ctl("list_consumers queue_name").unwrap().stdout;
            listed.contains(&format!("central.snf.{queue}"))
        };
        let queues = ["op", "network", "net", "progress", "cluster", "heartbeat"];
        for queue in queues {
            until(queue, async || served(queue).await).await;
        }
        // What a kill of the broker now and then does to a queue: it answers nobody.
        let heartbeat = "whereis('%2F_central.snf.heartbeat')";
        let done = broker
            .ctl(&format!("eval sys:suspend({heartbeat})."))
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        broker.ctl("close_all_connections test").unwrap();
        let agents = {
            drop(agents);
            Agents::connect(&broker).await
        };
        for message in story("OP_INSTANCE_CREATE", &format!("snf-{id}"), job, "10.66.1.2") {
            agents.send("op", &message).await;
        }
        until("ACTIVE", async || {
            central.server(&id).await["status"] == "ACTIVE"
        })
        .await;
        assert!(!served("heartbeat").await);
        // It comes back, and is served.
        broker
            .ctl(&format!("eval sys:resume({heartbeat})."))
            .unwrap();
        until("heartbeat", async || served("heartbeat").await).await;
    });
}

#[test]
fn a_network_that_is_connected_is_waited_for_no_more() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        central.create("one", &["bridged"]).await;
        let calls = central.rapi.submissions();
        let (add, connect) = (calls[0].job.unwrap(), calls[1].job.unwrap());
        assert!(!calls[2].body["depends"].is_null());
        central.create("two", &["bridged"]).await;
        let depends = central.rapi.last().body["depends"].clone();
        assert_eq!(
            depends,
            json!([[connect, ["canceled", "success", "error"]]])
        );
        // What comes before the queue is there is nobody's.
        until("the queue to be served", async || {
            let listed = broker.ctl("list_consumers queue_name").unwrap().stdout;
            listed.contains("central.snf.network")
        })
        .await;
        for mut message in recorded("network") {
            let job = if message["operation"] == "OP_NETWORK_ADD" {
                add
            } else {
                connect
            };
            message["jobId"] = json!(job);
            agents.send("network", &message).await;
        }
        until("a new server to wait for nothing", async || {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            central.create("three", &["bridged"]).await;
            central.rapi.last().body["depends"].is_null()
        })
        .await;
    });
}

#[test]
fn what_cannot_be_applied_is_kept_with_the_reason() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        let id = central.create("web", &["bridged"]).await;
        let instance = format!("snf-{id}");
        let job = central.rapi.last().job.unwrap();
        let create = story("OP_INSTANCE_CREATE", &instance, job, "10.66.1.2");
        let with = |field: &str, value: Value| {
            let mut message = create[0].clone();
            message[field] = value;
            message.to_string().into_bytes()
        };
        until("the dispatcher to declare its queues", async || {
            let listed = broker.ctl("list_queues name").unwrap().stdout;
            listed.contains("central.snf.heartbeat")
        })
        .await;
        let poison: Vec<(Vec<u8>, &str)> = vec![
            (b"not json".to_vec(), "not a message"),
            (b"[1, 2]".to_vec(), "not a message"),
            (br#"{"type": "weather"}"#.to_vec(), "weather"),
            (br#"{"type": "ganeti-op-status"}"#.to_vec(), "event_time"),
            (with("status", json!("happy")), "happy"),
            (with("jobId", json!("seven")), "seven"),
            (with("event_time", json!([1])), "size 2"),
            (
                json!({"type": "image-copy-progress", "event_time": [1, 0],
                       "instance": instance, "progress": "most"})
                .to_string()
                .into_bytes(),
                "progress",
            ),
        ];
        for (body, _) in &poison {
            agents.send_raw("ganeti.snf.event.op", body).await;
        }
        // What is not ours is no poison: other systems share the cluster.
        agents
            .send_raw(
                "ganeti.snf.event.op",
                &with("instance", json!("web.example.com")),
            )
            .await;
        // The rest goes on.
        for message in &create {
            agents.send("op", message).await;
        }
        until("ACTIVE", async || {
            central.server(&id).await["status"] == "ACTIVE"
        })
        .await;
        for (body, expected) in &poison {
            let dead = agents
                .channel
                .basic_get("central.snf.dead".into(), BasicGetOptions { no_ack: true })
                .await
                .unwrap()
                .unwrap_or_else(|| panic!("no dead letter for {expected}"));
            assert_eq!(&dead.delivery.data, body);
            let headers = dead.delivery.properties.headers().clone().unwrap();
            let reason = match headers.inner().get("x-reason") {
                Some(AMQPValue::LongString(text)) => text.to_string(),
                other => panic!("{other:?}"),
            };
            assert!(reason.contains(expected), "{reason}");
            assert_eq!(dead.delivery.routing_key.as_str(), "ganeti.snf.event.op");
        }
        let more = agents
            .channel
            .basic_get("central.snf.dead".into(), BasicGetOptions { no_ack: true })
            .await
            .unwrap();
        assert!(more.is_none());
    });
}
