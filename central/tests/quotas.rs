//! Limits hold however something is asked for, and however many ask at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::process::Command;

use harness::scratch::Scratch;
use reqwest::Method;
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{Answer, Central, OTHER_TOKEN, until};

const SERVERS: &str = "/compute/v2.0/servers";
const NETWORKS: &str = "/network/v2.0/networks";
const SUBNETS: &str = "/network/v2.0/subnets";
const PORTS: &str = "/network/v2.0/ports";
const FLOATING_IPS: &str = "/network/v2.0/floatingips";
const KEYPAIRS: &str = "/compute/v2.0/os-keypairs";
const IMAGES: &str = "/image/v2/images";

const SOURCES: &str = "[images]\nsources = ['https://images.example.org/']\n";

async fn sql(central: &Central, statement: &str) {
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    database.execute_unprepared(statement).await.unwrap();
}

/// Room for as many servers as are asked for.
async fn room(central: &Central) {
    sql(
        central,
        "UPDATE flavors SET ram = 1, disk = 0, vcpus = 0 WHERE name = 'tiny'",
    )
    .await;
    sql(central, "UPDATE images SET min_ram = 0, min_disk = 0").await;
}

async fn limit(central: &Central, resource: &str, most: i64) {
    sql(
        central,
        &format!(
            "INSERT INTO quotas (project_id, resource, most) \
             SELECT id, '{resource}', {most} FROM projects WHERE name = 'wonderland'"
        ),
    )
    .await;
}

/// A server that runs, with these NICs.
async fn server(central: &Central, networks: Value) -> String {
    let mut order = central.order("web", &[]).await;
    order["server"]["networks"] = networks;
    let made = central.post(SERVERS, order).await.expect(202);
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    idle(central, &id, "ACTIVE").await;
    id
}

async fn idle(central: &Central, id: &str, status: &str) {
    until(status, async || {
        let server = central.server(id).await;
        server["status"] == status && server["SNF:task_state"] == ""
    })
    .await;
}

async fn id_of(answer: Answer, name: &str) -> String {
    assert!(answer.status.is_success(), "{answer:?}");
    answer.body[name]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_a_pool_is_had_as_a_floating_ip_and_no_other_way() {
    let central = Central::start().await;
    central.rapi.succeed();
    room(&central).await;
    limit(&central, "floating_ips", 1).await;
    let pool = central.id_of(NETWORKS, "public").await;
    let web = server(&central, json!([])).await;

    let interface = format!("{SERVERS}/{web}/os-interface");
    let action = format!("{SERVERS}/{web}/action");
    let fixed = json!([{"ip_address": "192.0.2.9"}]);
    let mut order = central.order("more", &[]).await;
    order["server"]["networks"] = json!(vec![json!({"uuid": pool}); 8]);
    let mut named = order.clone();
    named["server"]["networks"] = json!([{"uuid": pool, "fixed_ip": "192.0.2.9"}]);
    for (path, body) in [
        (SERVERS, order.clone()),
        (SERVERS, named),
        (&interface, json!({"interfaceAttachment": {"net_id": pool}})),
        (
            &interface,
            json!({"interfaceAttachment": {"net_id": pool, "fixed_ips": fixed}}),
        ),
        (&action, json!({"addFixedIp": {"networkId": pool}})),
        (PORTS, json!({"port": {"network_id": pool}})),
        (
            PORTS,
            json!({"port": {"network_id": pool, "fixed_ips": fixed}}),
        ),
        (
            PORTS,
            json!({"port": {"network_id": pool, "device_id": web}}),
        ),
        (
            PORTS,
            json!({"port": {"network_id": pool, "device_id": web, "fixed_ips": fixed}}),
        ),
    ] {
        for prefix in ["", "/cyclades"] {
            let path = format!("{prefix}{path}");
            let message = central
                .post(&path, body.clone())
                .await
                .fault(403, "forbidden");
            assert!(message.contains("floating IP"), "{path} {body}: {message}");
        }
    }

    // One that is held can be plugged in, when a server is made as well, and stays held.
    let held = central.post(FLOATING_IPS, json!({"floatingip": {}})).await;
    let held = held.expect(201)["floatingip"]["floating_ip_address"].clone();
    central
        .post(FLOATING_IPS, json!({"floatingip": {}}))
        .await
        .fault(413, "overLimit");
    let mail = server(&central, json!([{"uuid": pool, "fixed_ip": held}])).await;
    let nic = central.server(&mail).await["attachments"][0].take();
    assert_eq!(nic["ipv4"], held, "{nic}");
    assert_eq!(nic["OS-EXT-IPS:type"], "floating", "{nic}");
    let address = json!({"interfaceAttachment":
        {"net_id": pool, "fixed_ips": [{"ip_address": held}]}});
    central
        .post(&interface, address)
        .await
        .fault(409, "conflict");
    // Another project's is not there to be used.
    let order = json!({"port": {"network_id": pool, "fixed_ips": [{"ip_address": held}]}});
    central
        .ask(Method::POST, PORTS, Some(OTHER_TOKEN), Some(order))
        .await
        .fault(403, "forbidden");
    let shown = central.get(FLOATING_IPS).await.expect(200);
    assert_eq!(shown["floatingips"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_eight_nics_whenever_they_come() {
    let central = Central::start().await;
    central.rapi.succeed();
    room(&central).await;
    let made = central
        .post(NETWORKS, json!({"network": {"name": "mine"}}))
        .await;
    let mine = id_of(made, "network").await;
    let pool = central.id_of(NETWORKS, "public").await;
    let web = server(&central, json!(vec![json!({"uuid": mine}); 7])).await;
    let port = central
        .post(PORTS, json!({"port": {"network_id": mine}}))
        .await;
    let port = id_of(port, "port").await;
    let held = central.post(FLOATING_IPS, json!({"floatingip": {}})).await;
    let held = held.expect(201)["floatingip"]["floating_ip_address"].clone();

    let interface = format!("{SERVERS}/{web}/os-interface");
    let action = format!("{SERVERS}/{web}/action");
    let one = json!({"interfaceAttachment": {"net_id": mine}});
    central.post(&interface, one.clone()).await.expect(200);
    idle(&central, &web, "ACTIVE").await;
    for (path, body) in [
        (interface.as_str(), one),
        (
            &interface,
            json!({"interfaceAttachment": {"port_id": port}}),
        ),
        (&action, json!({"addFixedIp": {"networkId": mine}})),
        (&action, json!({"addFloatingIp": {"address": held}})),
        (
            PORTS,
            json!({"port": {"network_id": mine, "device_id": web}}),
        ),
        (
            PORTS,
            json!({"port": {"network_id": pool, "device_id": web,
                "fixed_ips": [{"ip_address": held}]}}),
        ),
    ] {
        let message = central
            .post(path, body.clone())
            .await
            .fault(413, "overLimit");
        assert!(message.contains("at most 8"), "{body}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_that_starts_a_server_takes_what_a_start_takes() {
    let central = Central::start().await;
    central.rapi.succeed();
    let web = server(&central, json!([])).await;
    let action = format!("{SERVERS}/{web}/action");
    central
        .post(&action, json!({"os-stop": null}))
        .await
        .expect(202);
    idle(&central, &web, "SHUTOFF").await;
    for resource in ["cpu", "ram"] {
        limit(&central, resource, 0).await;
        for kind in ["SOFT", "HARD"] {
            let reboot = json!({"reboot": {"type": kind}});
            let message = central.post(&action, reboot).await.fault(413, "overLimit");
            assert!(message.contains(&format!("quota: {resource}")), "{message}");
        }
        sql(&central, "DELETE FROM quotas").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_has_a_limit_key_by_key_as_well() {
    let central = Central::start().await;
    let id = central.create("web", &[]).await;
    let entries: serde_json::Map<String, Value> = (0..128)
        .map(|number| (format!("key{number}"), json!("v")))
        .collect();
    let path = format!("{SERVERS}/{id}/metadata");
    central
        .post(&path, json!({"metadata": entries}))
        .await
        .expect(200);
    central
        .put(
            &format!("{path}/one-more"),
            json!({"meta": {"one-more": "v"}}),
        )
        .await
        .fault(413, "overLimit");
    central
        .put(&format!("{path}/key7"), json!({"meta": {"key7": "w"}}))
        .await
        .expect(200);
}

/// Resources that cost only rows have a limit that nobody set.
#[tokio::test(flavor = "multi_thread")]
async fn what_costs_only_rows_has_a_limit_by_itself() {
    let central = Central::with(FakeRapi::start().await, SOURCES).await;
    let made = central
        .post(NETWORKS, json!({"network": {"name": "mine"}}))
        .await;
    let mine = id_of(made, "network").await;
    for (path, body, resource, most) in [
        (
            PORTS,
            json!({"port": {"network_id": mine}}),
            "unattached_ports",
            100,
        ),
        (
            IMAGES,
            json!({"name": "i", "source": "https://images.example.org/i"}),
            "images",
            100,
        ),
        // One is there.
        (
            NETWORKS,
            json!({"network": {"name": "n"}}),
            "private_networks",
            99,
        ),
    ] {
        for number in 0..most {
            let answer = central.post(path, body.clone()).await;
            assert!(answer.status.is_success(), "{path} {number}: {answer:?}");
        }
        let message = central.post(path, body).await.fault(413, "overLimit");
        assert!(message.contains(&format!("quota: {resource}")), "{message}");
    }
}

async fn all_at_once(central: &Central, path: &str, bodies: Vec<Value>) -> usize {
    let requests = bodies.into_iter().map(async |body| {
        loop {
            let answer = central.post(path, body.clone()).await;
            match answer.status.as_u16() {
                200..=202 => break true,
                413 => break false,
                // So many at once may have to come again.
                503 => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
                _ => panic!("{path}: {answer:?}"),
            }
        }
    });
    let done = futures_util::future::join_all(requests).await;
    done.into_iter().filter(|made| *made).count()
}

/// On a database where transactions overlap: the last one goes to one.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_once_get_what_the_quota_has_and_no_more() {
    let scratch = Scratch::new("central-quotas").unwrap();
    let database = support::postgres(&scratch);
    let rapi = FakeRapi::start().await;
    let folder = tempfile::tempdir().unwrap();
    let central = Central::on(rapi, folder, &database.uri(), SOURCES).await;
    room(&central).await;
    let mine = central
        .post(NETWORKS, json!({"network": {"name": "mine"}}))
        .await;
    let mine = id_of(mine, "network").await;
    let mut empty = Vec::new();
    for _ in 0..9 {
        let made = central
            .post(NETWORKS, json!({"network": {"name": "n"}}))
            .await;
        empty.push(id_of(made, "network").await);
    }
    let order = central.order("web", &[]).await;
    let mut plugged = order.clone();
    plugged["server"]["networks"] = json!([{"uuid": mine}]);
    let many = |body: Value| vec![body; 60];
    let named = |number: usize| json!({"keypair": {"name": format!("key{number}")}});
    let subnet = |network: &String| json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"}});
    // Each with its own number of what is there already.
    for (resource, path, bodies, there, most) in [
        (
            "images",
            IMAGES,
            many(json!({"name": "i", "source": "https://images.example.org/i"})),
            0,
            3,
        ),
        ("keypairs", KEYPAIRS, (0..60).map(named).collect(), 0, 3),
        (
            "private_networks",
            NETWORKS,
            many(json!({"network": {"name": "n"}})),
            10,
            13,
        ),
        ("subnets", SUBNETS, empty.iter().map(subnet).collect(), 0, 3),
        (
            "unattached_ports",
            PORTS,
            many(json!({"port": {"network_id": mine}})),
            0,
            3,
        ),
        (
            "ports",
            PORTS,
            many(json!({"port": {"network_id": mine}})),
            3,
            6,
        ),
        ("ports", SERVERS, many(plugged), 6, 8),
        (
            "floating_ips",
            FLOATING_IPS,
            many(json!({"floatingip": {}})),
            0,
            3,
        ),
        ("volumes", SERVERS, many(order.clone()), 2, 5),
        ("servers", SERVERS, many(order), 5, 7),
    ] {
        sql(&central, "DELETE FROM quotas").await;
        limit(&central, resource, most).await;
        let made = all_at_once(&central, path, bodies).await;
        assert_eq!(i64::try_from(made).unwrap(), most - there, "{resource}");
    }
    // Five hundred of the cheapest kind.
    sql(&central, "DELETE FROM quotas").await;
    limit(&central, "images", 20).await;
    let image = json!({"name": "i", "source": "https://images.example.org/i"});
    assert_eq!(all_at_once(&central, IMAGES, vec![image; 500]).await, 17);
}

fn shell(central: &Central, arguments: &[&str]) -> (bool, String) {
    let text = format!(
        "log = 'warn'\n[database]\nurl = '{}'\n",
        central.config.database_url
    );
    let path = central.folder.path().join("shell.toml");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_snf-central"))
        .arg("--config")
        .arg(&path)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_set_limits_take_them_off_and_have_defaults_again() {
    let central = Central::start().await;
    let keypairs = async || {
        let limits = central.get("/compute/v2.0/limits").await.expect(200);
        limits["limits"]["absolute"]["maxTotalKeypairs"].clone()
    };
    assert_eq!(keypairs().await, 100);
    for (most, expected) in [
        (Some("7"), json!(7)),
        (Some("unlimited"), json!(-1)),
        (None, json!(100)),
    ] {
        let mut words = vec!["quota", "set", "wonderland", "keypairs"];
        words.extend(most);
        let (good, text) = shell(&central, &words);
        assert!(good, "{text}");
        assert_eq!(keypairs().await, expected, "{text}");
    }
    let (good, text) = shell(
        &central,
        &["quota", "set", "wonderland", "keypairs", "many"],
    );
    assert!(!good && text.contains("unlimited"), "{text}");
    let (_, text) = shell(&central, &["quota", "list", "wonderland", "--json"]);
    let rows: Value = serde_json::from_str(&text).unwrap();
    for resource in ["ports", "unattached_ports", "images", "subnets", "volumes"] {
        let rows = rows.as_array().unwrap();
        assert!(
            rows.iter().any(|row| row["resource"] == resource),
            "{rows:?}"
        );
    }
}
