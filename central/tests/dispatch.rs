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
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::{Value, json};
use support::broker::{Agents, is_served, isolated, recorded, served, story};
use support::stage::QUEUES;
use support::{Central, TOKEN, until};

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
            QUEUES
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
        let queues = ["op", "network", "net", "progress", "cluster", "heartbeat"];
        for queue in queues {
            served(&broker, queue).await;
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
        assert!(!is_served(&broker, "heartbeat"));
        // The new consumers take no more at once than the old ones did.
        let listed = broker
            .ctl("list_consumers queue_name prefetch_count")
            .unwrap()
            .stdout;
        assert!(listed.contains("central.snf.op\t64\n"), "{listed}");
        // It comes back, and is served.
        broker
            .ctl(&format!("eval sys:resume({heartbeat})."))
            .unwrap();
        served(&broker, "heartbeat").await;
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
        served(&broker, "network").await;
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

/// The messages of a modification, as recorded of another operation, with what it brings along.
fn modification(instance: &str, job: i64, beparams: Value, nics: Value) -> Vec<Value> {
    let mut messages = story("OP_INSTANCE_SHUTDOWN", instance, job, "");
    for message in &mut messages {
        message["operation"] = json!("OP_INSTANCE_SET_PARAMS");
        message["job_fields"] = json!({"beparams": beparams});
    }
    messages.last_mut().unwrap()["instance_nics"] = nics;
    messages
}

/// The messages of a job that gives tags or takes them.
fn tagging(operation: &str, instance: &str, job: i64, tags: &[&str]) -> Vec<Value> {
    let mut messages = story("OP_INSTANCE_SHUTDOWN", instance, job, "");
    for message in &mut messages {
        message["operation"] = json!(operation);
        message["tags"] = json!(tags);
        message.as_object_mut().unwrap().remove("instance_nics");
    }
    messages
}

/// Each label ends as the last of its jobs says, in whatever order that is told; so does a rescue.
#[test]
fn labels_and_rescues_are_as_the_messages_say() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        served(&broker, "op").await;
        let mut order = central.order("web", &[]).await;
        order["server"]["tags"] = json!(["first", "second"]);
        let made = central.post("/compute/v2.0/servers", order).await;
        let made = made.expect(202);
        let id = made["server"]["id"].as_str().unwrap();
        let instance = format!("snf-{id}");
        let create = central.rapi.last().job.unwrap();
        let said = async |messages: Vec<Value>| {
            for message in messages {
                agents.send("op", &message).await;
            }
        };
        // What was told of the last job is not changed by what is told later of earlier ones.
        let jobs = [
            ("OP_TAGS_DEL", create + 3, vec!["cyclades:user:first"]),
            (
                "OP_TAGS_SET",
                create + 4,
                vec!["cyclades:user:third", "synnefo:network:0:limited"],
            ),
            (
                "OP_TAGS_SET",
                create + 1,
                vec!["cyclades:user:first", "cyclades:user:fourth"],
            ),
            ("OP_TAGS_DEL", create + 2, vec!["cyclades:user:third"]),
        ];
        for (operation, job, tags) in &jobs {
            said(tagging(operation, &instance, *job, tags)).await;
        }
        let mut failed = tagging(
            "OP_TAGS_DEL",
            &instance,
            create + 5,
            &["cyclades:user:fourth"],
        );
        failed.last_mut().unwrap()["status"] = json!("error");
        said(failed).await;
        let mut rescued = modification(&instance, create + 7, Value::Null, json!([]));
        rescued.last_mut().unwrap()["instance_hvparams"] =
            json!({"boot_order": "cdrom", "cdrom_image_path": "/srv/rescue.iso"});
        said(rescued).await;
        let mut before = modification(&instance, create + 6, Value::Null, json!([]));
        before.last_mut().unwrap()["instance_hvparams"] =
            json!({"boot_order": "disk", "cdrom_image_path": ""});
        said(before).await;
        let mut create = story("OP_INSTANCE_CREATE", &instance, create, "");
        create.last_mut().unwrap()["instance_nics"] = json!([]);
        said(create).await;
        until("ACTIVE", async || {
            central.server(id).await["status"] == "ACTIVE"
        })
        .await;
        let server = central.server(id).await;
        assert_eq!(server["tags"], json!(["fourth", "second", "third"]));
        assert_eq!(server["SNF:rescue"], true);

        // What a user wished last is shown while the job of an earlier wish ends.
        let last = server["tags"].clone();
        let tags = format!("/compute/v2.0/servers/{id}/tags");
        let late = format!("{tags}/late");
        let job = || central.rapi.last().job.unwrap();
        let put = central.ask(reqwest::Method::PUT, &late, Some(TOKEN), None);
        put.await.expect(201);
        let set = job();
        central.delete(&late).await.expect(204);
        let taken = job();
        let label = ["cyclades:user:late"];
        said(tagging("OP_TAGS_SET", &instance, set, &label)).await;
        let marker = ["cyclades:user:zebra"];
        said(tagging("OP_TAGS_SET", &instance, taken + 100, &marker)).await;
        let shown = async || central.get(&tags).await.expect(200);
        let has = async |label: &str| {
            until(label, async || {
                let shown = shown().await["tags"].clone();
                shown.as_array().unwrap().contains(&json!(label))
            })
            .await;
        };
        has("zebra").await;
        let mut with_marker = last.as_array().unwrap().clone();
        with_marker.push(json!("zebra"));
        assert_eq!(shown().await["tags"], json!(with_marker));
        // With its own job the wish is over: what comes then is shown.
        said(tagging("OP_TAGS_DEL", &instance, taken, &label)).await;
        said(tagging("OP_TAGS_SET", &instance, taken + 101, &label)).await;
        has("late").await;
    });
}

#[test]
fn a_server_is_resized_and_gets_and_loses_a_floating_address() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        served(&broker, "op").await;
        let usage = async |wanted: Value| {
            let quotas = central
                .get("/cyclades/account/v1.0/quotas")
                .await
                .expect(200);
            let project = quotas.as_object().unwrap().values().next().unwrap();
            for (resource, amount) in wanted.as_object().unwrap() {
                let resource = format!("cyclades.{resource}");
                assert_eq!(
                    &project[&resource]["usage"], amount,
                    "{resource}: {project}"
                );
            }
        };
        let id = central.create("web", &["bridged"]).await;
        let instance = format!("snf-{id}");
        let path = format!("/compute/v2.0/servers/{id}");
        let action = format!("{path}/action");
        let idle = async |status: &str| {
            until(status, async || {
                let server = central.server(&id).await;
                server["status"] == status && server["SNF:task_state"] == ""
            })
            .await;
        };
        let job = || central.rapi.last().job.unwrap();
        let nic = |id: &Value, network: &str, ip: &str, mac: &str| {
            let number = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            json!({"name": format!("snf-nic-{number}"), "network": network, "ip": ip, "mac": mac,
                   "mode": "bridged", "link": "br0", "uuid": "u"})
        };
        let ports = async || central.get("/network/v2.0/ports").await.expect(200)["ports"].take();
        let first = ports().await[0]["id"].take();
        let own = nic(&first, "snf-net-1", "10.66.1.2", "aa:00:00:00:00:01");
        let mut messages = story("OP_INSTANCE_CREATE", &instance, job(), "10.66.1.2");
        messages.last_mut().unwrap()["instance_nics"] = json!([own]);
        for message in &messages {
            agents.send("op", message).await;
        }
        idle("ACTIVE").await;
        usage(json!({"vm": 1, "total_cpu": 1, "cpu": 1, "ram": 128, "floating_ip": 0})).await;
        central
            .post(&action, json!({"os-stop": null}))
            .await
            .expect(202);
        for message in story("OP_INSTANCE_SHUTDOWN", &instance, job(), "") {
            agents.send("op", &message).await;
        }
        idle("SHUTOFF").await;
        usage(json!({"vm": 1, "total_cpu": 1, "cpu": 0, "total_ram": 128, "ram": 0})).await;

        // To a flavor that there is.
        let small = central.id_of("/compute/v2.0/flavors", "small").await;
        let resize = json!({"resize": {"flavorRef": small}});
        central.post(&action, resize).await.expect(202);
        assert_eq!(central.server(&id).await["status"], "RESIZE");
        let bigger = json!({"vcpus": 2, "minmem": 256, "maxmem": 256});
        for message in modification(&instance, job(), bigger, json!([own])) {
            agents.send("op", &message).await;
        }
        idle("SHUTOFF").await;
        assert_eq!(central.server(&id).await["flavor"]["id"], json!(small));
        usage(json!({"total_cpu": 2, "cpu": 0, "total_ram": 256})).await;

        // A floating address, plugged in and out again.
        let body = json!({"floatingip": {"floating_network_id": "4"}});
        let made = central
            .post("/network/v2.0/floatingips", body)
            .await
            .expect(201);
        let made = made["floatingip"].clone();
        let one = format!("/network/v2.0/floatingips/{}", made["id"].as_str().unwrap());
        let address = made["floating_ip_address"].as_str().unwrap();
        let add = json!({"addFloatingIp": {"address": address}});
        central.post(&action, add).await.expect(202);
        let list = ports().await;
        let list = list.as_array().unwrap();
        let second = list.iter().find(|port| port["id"] != first).unwrap()["id"].clone();
        let plugged = nic(&second, "snf-net-4", address, "aa:00:00:00:00:02");
        // With a size that no flavor has: that is told, and nothing else comes of it.
        let odd = json!({"vcpus": 7, "minmem": 256, "maxmem": 256});
        for message in modification(&instance, job(), odd, json!([own, plugged])) {
            agents.send("op", &message).await;
        }
        idle("SHUTOFF").await;
        let server = central.server(&id).await;
        assert_eq!(server["flavor"]["id"], json!(small));
        let shown = &server["addresses"]["public"][0];
        assert_eq!(shown["addr"], address, "{server}");
        assert_eq!(shown["OS-EXT-IPS:type"], "floating");
        let told = central
            .get(&format!("{path}/diagnostics"))
            .await
            .expect(200);
        assert!(told.to_string().contains("no such flavor"), "{told}");
        let remove = json!({"removeFloatingIp": {"address": address}});
        central.post(&action, remove).await.expect(202);
        for message in modification(&instance, job(), Value::Null, json!([own])) {
            agents.send("op", &message).await;
        }
        idle("SHUTOFF").await;
        let shown = central.get(&one).await.expect(200)["floatingip"].take();
        assert_eq!(shown["port_id"], Value::Null);
        assert_eq!(
            central.server(&id).await["addresses"]["public"],
            Value::Null
        );
        usage(json!({"floating_ip": 1, "vm": 1})).await;

        central.delete(&path).await.expect(204);
        for message in story("OP_INSTANCE_REMOVE", &instance, job(), "") {
            agents.send("op", &message).await;
        }
        idle("DELETED").await;
        usage(json!({"floating_ip": 1, "vm": 0, "total_cpu": 0, "total_ram": 0, "disk": 0})).await;
    });
}

/// The parameters that other operations bring along hold for one start, or were never applied; a
/// dry run has done nothing.
#[test]
fn other_operations_change_no_flavor_and_a_dry_run_changes_nothing() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let agents = Agents::connect(&broker).await;
        served(&broker, "op").await;
        let id = central.create("web", &["bridged"]).await;
        let instance = format!("snf-{id}");
        let create = central.rapi.last().job.unwrap();
        for message in story("OP_INSTANCE_CREATE", &instance, create, "10.66.1.2") {
            agents.send("op", &message).await;
        }
        until("ACTIVE", async || {
            central.server(&id).await["status"] == "ACTIVE"
        })
        .await;
        let before = central.server(&id).await;
        let small = central.id_of("/compute/v2.0/flavors", "small").await;
        assert_ne!(before["flavor"]["id"], json!(small));
        let mut job = create;
        let mut sent = async |operation: &str, fields: Value, tags: Value, dry_run: bool| {
            job += 1;
            let mut message = story("OP_INSTANCE_SHUTDOWN", &instance, job, "");
            let mut message = message.pop().unwrap();
            message["operation"] = json!(operation);
            message["job_fields"] = fields;
            message["tags"] = tags;
            if dry_run {
                agents.send_dry_run("op", &message).await;
            } else {
                agents.send("op", &message).await;
            }
        };
        let bigger = json!({"nics": [["add", -1, {}]], "disks": [], "hvparams": {},
            "beparams": {"vcpus": 2, "minmem": 256, "maxmem": 256}});
        for operation in [
            "OP_INSTANCE_STARTUP",
            "OP_INSTANCE_REBOOT",
            "OP_INSTANCE_MIGRATE",
            "OP_INSTANCE_REINSTALL",
            "OP_INSTANCE_GROW_DISK",
            "OP_INSTANCE_LATER",
        ] {
            sent(operation, bigger.clone(), json!([]), false).await;
        }
        // Told with a mark outside the body, or inside of it, as tag operations do.
        let none = json!({});
        let mark = json!({"dry_run": true});
        let odd = json!({"dry_run": true, "beparams": bigger["beparams"]});
        for operation in [
            "OP_INSTANCE_SHUTDOWN",
            "OP_INSTANCE_REMOVE",
            "OP_INSTANCE_SET_PARAMS",
        ] {
            sent(operation, none.clone(), json!([]), true).await;
            sent(operation, odd.clone(), json!([]), false).await;
        }
        let label = json!(["cyclades:user:dry"]);
        sent("OP_TAGS_SET", mark.clone(), label.clone(), false).await;
        sent("OP_TAGS_SET", none.clone(), label, true).await;
        let last = json!(["cyclades:user:last"]);
        sent("OP_TAGS_SET", json!({"dry_run": false}), last, false).await;
        until("the last message", async || {
            central.server(&id).await["tags"] == json!(["last"])
        })
        .await;
        let after = central.server(&id).await;
        for field in ["status", "flavor", "addresses", "SNF:task_state"] {
            assert_eq!(after[field], before[field], "{field}");
        }
    });
}

/// All that messages change.
async fn contents(url: &str) -> Vec<String> {
    let database = Database::connect(url).await.unwrap();
    let mut contents = Vec::new();
    for (table, columns) in [
        (
            "servers",
            "id, state, task, flavor_id, progress, deleted_at, updated_at, job_id, job_rank",
        ),
        (
            "ports",
            "id, state, mac, ipv4, ipv6, firewall, deleted_at, updated_at",
        ),
        (
            "addresses",
            "id, address, port_id, live, deleted_at, updated_at",
        ),
        ("volumes", "id, status, size, deleted_at, updated_at"),
        ("diagnostics", "id, server_id, message"),
    ] {
        let query = format!("SELECT json_array({columns}) FROM {table} ORDER BY id");
        let backend = database.get_database_backend();
        let rows = database.query_all_raw(Statement::from_string(backend, query));
        for row in rows.await.unwrap() {
            let row: String = row.try_get_by_index(0).unwrap();
            contents.push(format!("{table} {row}"));
        }
    }
    contents
}

#[test]
fn what_was_followed_without_a_broker_has_no_second_effect_with_one() {
    isolated(async |site| {
        let mut alone = Central::start().await;
        alone.rapi.succeed();
        let idle = async |central: &Central, id: &str, status: &str| {
            until(status, async || {
                let server = central.server(id).await;
                server["status"] == status && server["SNF:task_state"] == ""
            })
            .await;
        };
        let stays = alone.create("stays", &["bridged"]).await;
        let goes = alone.create("goes", &["bridged"]).await;
        for id in [&stays, &goes] {
            idle(&alone, id, "ACTIVE").await;
        }
        let action = format!("/compute/v2.0/servers/{stays}/action");
        alone
            .post(&action, json!({"os-stop": null}))
            .await
            .expect(202);
        idle(&alone, &stays, "SHUTOFF").await;
        alone
            .delete(&format!("/compute/v2.0/servers/{goes}"))
            .await
            .expect(204);
        idle(&alone, &goes, "DELETED").await;
        alone.stop().await;
        let url = alone.config.database_url.clone();
        let before = contents(&url).await;
        assert!(before.len() >= 8, "{before:#?}");

        // Now there is one, and eventd tells all that it has kept, some of it twice.
        let broker = site.broker();
        let more = format!("[broker]\nurls = ['{}']\n", broker.uri());
        let folder = tempfile::tempdir().unwrap();
        let central = Central::on(alone.rapi.clone(), folder, &url, &more).await;
        let agents = Agents::connect(&broker).await;
        served(&broker, "op").await;
        let mut told = 0;
        for call in central.rapi.submissions() {
            let job = call.job.unwrap();
            let operation = match (call.method.as_str(), call.path.as_str()) {
                ("POST", "/2/instances") => "OP_INSTANCE_CREATE",
                ("PUT", path) if path.ends_with("/shutdown") => "OP_INSTANCE_SHUTDOWN",
                ("DELETE", _) => "OP_INSTANCE_REMOVE",
                _ => continue,
            };
            let instance = match call.body["name"].as_str() {
                Some(name) => name.to_owned(),
                None => call.path.split('/').nth(3).unwrap().to_owned(),
            };
            let ip = call.body["nics"][0]["ip"].as_str().unwrap_or_default();
            let began = central.rapi.received(job);
            for mut message in story(operation, &instance, job, ip) {
                message["event_time"] = began.clone();
                agents.send("op", &message).await;
                agents.send("op", &message).await;
                told += 1;
            }
        }
        assert!(told > 20, "{told}");
        // What comes after all that is news.
        let next = central.create("next", &[]).await;
        let job = central.rapi.last().job.unwrap();
        for message in story("OP_INSTANCE_CREATE", &format!("snf-{next}"), job, "") {
            agents.send("op", &message).await;
        }
        idle(&central, &next, "ACTIVE").await;
        let after = contents(&url).await;
        let (same, new): (Vec<String>, Vec<String>) =
            after.into_iter().partition(|row| before.contains(row));
        assert_eq!(same, before, "and: {new:#?}");
        // The new server and its disk.
        assert_eq!(new.len(), 2, "{new:#?}");
    });
}
