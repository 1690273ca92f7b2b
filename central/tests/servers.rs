//! What servers are told once, their consoles, firewalls and NICs, against a RAPI that answers as
//! the recorded one did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use reqwest::Method;
use sea_orm::{ConnectionTrait, Database, FromQueryResult, Statement};
use serde_json::{Value, json};
use support::rapi::{FakeRapi, Mood};
use support::{Central, OTHER_TOKEN, TOKEN, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NODES: &str = "[parameters]\nurl = 'http://central.example.org/'\n";

/// A central that tells servers what they should know.
async fn telling(more: &str) -> Central {
    let rapi = FakeRapi::start().await;
    rapi.succeed();
    Central::with(rapi, &format!("{NODES}{more}")).await
}

async fn idle(central: &Central, id: &str, status: &str) {
    until(status, || async {
        let server = central.server(id).await;
        server["status"] == status && server["SNF:task_state"] == ""
    })
    .await;
}

/// Everything that is in the tables, as text.
async fn dump(central: &Central) -> String {
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    let query = |text: &str| Statement::from_string(database.get_database_backend(), text);
    let mut all = String::new();
    for table in [
        "intents",
        "one_shots",
        "servers",
        "diagnostics",
        "server_metadata",
    ] {
        let rows = database
            .query_all_raw(query(&format!("SELECT * FROM {table}")))
            .await
            .unwrap();
        for row in rows {
            let row = sea_orm::JsonValue::from_query_result(&row, "").unwrap();
            all.push_str(&format!("{table}: {row}\n"));
        }
    }
    all
}

/// The path of `config_url`, as the node would ask for it here.
fn parameters_path(create: &Value) -> String {
    let url = create["osparams"]["config_url"].as_str().unwrap();
    let path = url.strip_prefix("http://central.example.org").unwrap();
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_is_told_its_files_keys_and_password_once() {
    let central = telling("nodes = ['127.0.0.1', '::1']").await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x";
    let keypair = json!({"keypair": {"name": "mine", "public_key": key}});
    central
        .post("/compute/v2.0/os-keypairs", keypair)
        .await
        .expect(200);
    let mut order = central.order("inside", &["bridged"]).await;
    let contents = "aGVsbG8gd29ybGQ=";
    order["server"]["personality"] =
        json!([{"path": "/etc/motd", "contents": contents, "owner": "root", "mode": 420}]);
    order["server"]["user_data"] = json!("I2Nsb3VkLWNvbmZpZwo=");
    order["server"]["adminPass"] = json!("correct horse battery");
    order["server"]["key_name"] = json!("mine");
    let made = central
        .post("/compute/v2.0/servers", order)
        .await
        .expect(202);
    assert_eq!(made["server"]["adminPass"], "correct horse battery");
    let id = made["server"]["id"].as_str().unwrap();
    // Nothing of it is to be read in the database, or in what Ganeti is asked.
    let dumped = dump(&central).await;
    let asked = central.rapi.last().body;
    for secret in ["correct horse", contents, "I2Nsb3VkLWNvbmZpZwo"] {
        assert!(!dumped.contains(secret), "{secret}: {dumped}");
        assert!(!asked.to_string().contains(secret), "{asked}");
    }
    let path = parameters_path(&asked);
    // HEAD does not use it up.
    let head = central.ask(Method::HEAD, &path, None, None).await;
    assert_eq!(head.status, 405);
    let told = central
        .ask(Method::GET, &path, None, None)
        .await
        .expect(200);
    assert_eq!(told["img_passwd"], "correct horse battery");
    assert_eq!(told["img_id"], "/srv/images/busybox.img");
    assert_eq!(told["img_format"], "diskdump");
    assert_eq!(told["cloud_userdata"], "I2Nsb3VkLWNvbmZpZwo=");
    assert!(told["auth_keys"].as_str().unwrap().contains("AAAAC3Nza"));
    let files: Value = serde_json::from_str(told["img_personality"].as_str().unwrap()).unwrap();
    assert_eq!(files[0]["path"], "/etc/motd");
    assert_eq!(files[0]["contents"], contents);
    let properties: Value = serde_json::from_str(told["img_properties"].as_str().unwrap()).unwrap();
    assert_eq!(properties["OSFAMILY"], "linux");
    // Once.
    let again = central.ask(Method::GET, &path, None, None).await;
    again.fault(404, "itemNotFound");
    let password = format!("/compute/v2.0/servers/{id}/password");
    // Others do not get it, nor learn that it is there.
    let stranger = central
        .ask(Method::GET, &password, Some(OTHER_TOKEN), None)
        .await;
    stranger.fault(404, "itemNotFound");
    let body = central.get(&password).await.expect(200);
    assert_eq!(body["password"], "correct horse battery");
    central.get(&password).await.fault(404, "itemNotFound");
    central.delete(&password).await.fault(404, "itemNotFound");
    let show = central.server(id).await;
    assert!(show["adminPass"].is_null(), "{show}");
    let left = dump(&central).await;
    assert!(
        left.contains("servers:") && !left.contains("one_shots:"),
        "{left}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_made_where_none_is_given_and_may_be_forgotten_untold() {
    let central = telling("").await;
    let order = central.order("plain", &[]).await;
    let path = "/compute/v2.0/servers";
    let made = central.post(path, order.clone()).await.expect(202);
    let first = made["server"]["adminPass"].as_str().unwrap().to_owned();
    let other = central.post(path, order).await.expect(202);
    assert!(first.len() >= 12 && other["server"]["adminPass"] != first.as_str());
    let id = made["server"]["id"].as_str().unwrap();
    let password = format!("{path}/{id}/password");
    central.delete(&password).await.expect(204);
    central.get(&password).await.fault(404, "itemNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_ask_for_parameters_one_gets_them() {
    let central = telling("").await;
    central.create("raced", &[]).await;
    let path = parameters_path(&central.rapi.last().body);
    let ask = || central.ask(Method::GET, &path, None, None);
    let answers = futures_util::future::join_all((0..20).map(|_| ask())).await;
    let told = answers.iter().filter(|answer| answer.status == 200).count();
    let missing = answers.iter().filter(|answer| answer.status == 404).count();
    assert_eq!((told, missing), (1, 19));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_for_nodes_only() {
    let central = telling("nodes = ['192.0.2.0/24']").await;
    central.create("guarded", &[]).await;
    let path = parameters_path(&central.rapi.last().body);
    for token in [None, Some(TOKEN)] {
        let answer = central.ask(Method::GET, &path, token, None).await;
        answer.fault(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_is_refused() {
    let central = Central::start().await;
    let order = central.order("s", &[]).await;
    for (field, value) in [
        ("adminPass", json!("correct horse battery")),
        ("user_data", json!("aGk=")),
        ("personality", json!([{"path": "/a", "contents": ""}])),
    ] {
        let mut order = order.clone();
        order["server"][field] = value;
        let answer = central.post("/compute/v2.0/servers", order).await;
        let message = answer.fault(501, "notImplemented");
        assert!(message.contains(field), "{message}");
    }
    // An empty list asks for nothing.
    let mut order = order;
    order["server"]["personality"] = json!([]);
    central
        .post("/compute/v2.0/servers", order)
        .await
        .expect(202);
    assert!(central.rapi.last().body["osparams"]["config_url"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_creation_leaves_nothing_to_be_told() {
    let central = telling("").await;
    central.rapi.set_mood(Mood::Drained);
    let order = central.order("s", &[]).await;
    let answer = central.post("/compute/v2.0/servers", order).await;
    answer.fault(503, "serviceUnavailable");
    assert_eq!(dump(&central).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_profile_is_a_tag_and_takes_the_place_of_the_old_one() {
    let central = telling("").await;
    let id = central.create("walled", &["bridged"]).await;
    idle(&central, &id, "ACTIVE").await;
    let nic = central.server(&id).await["attachments"][0]["id"].clone();
    let action = format!("/compute/v2.0/servers/{id}/action");
    let name = format!("snf-{id}");
    let tag = |profile: &str| format!("synnefo:network:snf-nic-{nic}:{profile}");
    for (profile, tags) in [
        ("ENABLED", vec![tag("protected")]),
        ("PROTECTED", vec![tag("limited")]),
        ("PROTECTED", vec![tag("limited")]),
        ("DISABLED", vec![]),
    ] {
        let body = json!({"firewallProfile": {"profile": profile, "nic": nic}});
        central.post(&action, body).await.expect(202);
        idle(&central, &id, "ACTIVE").await;
        let now = central.server(&id).await;
        assert_eq!(now["attachments"][0]["firewallProfile"], profile, "{now}");
        let all = central.rapi.submissions();
        // The last is a modification that waits for the changes of tags.
        let modify = all.last().unwrap();
        assert_eq!(modify.path, format!("/2/instances/{name}/modify"));
        assert_eq!(modify.body["os_name"], "snf-image+default");
        assert_eq!(central.rapi.tags(&name), json!(tags), "{profile}");
        let before = all.len() - 2;
        if all[before].path.ends_with("/tags") {
            assert_eq!(
                modify.body["depends"].as_array().unwrap().last().unwrap()[0],
                { json!(all[before].job) }
            );
        }
    }
    // The same profile twice changes no tag.
    let tags = central
        .rapi
        .submissions()
        .iter()
        .filter(|call| call.path.ends_with("/tags"))
        .count();
    assert_eq!(tags, 1 + 2 + 1);
    let wrong = |body: Value| central.post(&action, json!({"firewallProfile": body}));
    let message = wrong(json!({"profile": "OPEN", "nic": nic}))
        .await
        .fault(400, "badRequest");
    assert!(
        message.contains("firewallProfile.profile: \"OPEN\""),
        "{message}"
    );
    wrong(json!({"profile": "ENABLED", "nic": 999}))
        .await
        .fault(404, "itemNotFound");
    wrong(json!({"profile": "ENABLED"}))
        .await
        .fault(400, "badRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_addresses_come_and_go_by_action() {
    let central = telling("").await;
    let id = central.create("moving", &["bridged"]).await;
    idle(&central, &id, "ACTIVE").await;
    let action = format!("/compute/v2.0/servers/{id}/action");
    let network = central.id_of("/network/v2.0/networks", "routed").await;
    let add = json!({"addFixedIp": {"networkId": network}});
    central.post(&action, add).await.expect(202);
    idle(&central, &id, "ACTIVE").await;
    let server = central.server(&id).await;
    let address = server["addresses"]["routed"][0]["addr"].clone();
    assert!(
        address.as_str().unwrap().starts_with("10.66.2."),
        "{server}"
    );
    let remove = json!({"removeFixedIp": {"address": address}});
    central.post(&action, remove.clone()).await.expect(202);
    idle(&central, &id, "ACTIVE").await;
    assert!(central.server(&id).await["addresses"]["routed"].is_null());
    central.post(&action, remove).await.fault(409, "conflict");
    let bad = json!({"removeFixedIp": {"address": "everything"}});
    central.post(&action, bad).await.fault(400, "badRequest");
}

/// What a client's side of a websocket needs for one exchange.
async fn upgrade(base: &str, path: &str) -> (String, TcpStream) {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: binary\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (String::from_utf8(head).unwrap(), stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_shown_once_to_who_has_its_token() {
    let central = telling("").await;
    let id = central.create("shown", &[]).await;
    idle(&central, &id, "ACTIVE").await;
    // A guest's VNC server, on the node that RAPI names.
    let vnc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = vnc.local_addr().unwrap().port();
    let name = format!("snf-{id}");
    central.rapi.change(&name, "pnode", json!("127.0.0.1"));
    central.rapi.change(&name, "network_port", json!(port));
    let guest = tokio::spawn(async move {
        let (mut client, _) = vnc.accept().await.unwrap();
        client.write_all(b"RFB 003.008\n").await.unwrap();
        let mut heard = [0_u8; 5];
        client.read_exact(&mut heard).await.unwrap();
        heard
    });
    let action = format!("/compute/v2.0/servers/{id}/action");
    let novnc = json!({"os-getVNCConsole": {"type": "novnc"}});
    let body = central.post(&action, novnc.clone()).await.expect(200);
    assert_eq!(body["console"]["type"], "novnc");
    let url = body["console"]["url"].as_str().unwrap();
    let path = url
        .strip_prefix(&central.base.replace("http", "ws"))
        .unwrap();
    // What is no websocket does not use the token up.
    central.get(path).await.fault(400, "badRequest");
    let (head, mut stream) = upgrade(&central.base, path).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_lowercase()
            .contains("sec-websocket-protocol: binary")
    );
    // RFC 6455, section 5.2: binary, whole, 12 bytes.
    let mut frame = [0_u8; 14];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x82\x0cRFB 003.008\n");
    // Masked with zeros: the bytes are themselves.
    stream.write_all(b"\x82\x85\0\0\0\0hello").await.unwrap();
    assert_eq!(&guest.await.unwrap(), b"hello");
    // The guest's server is gone: so is the console.
    let mut close = [0_u8; 1];
    stream.read_exact(&mut close).await.unwrap();
    assert_eq!(close[0] & 0x0f, 8);
    let (head, _) = upgrade(&central.base, path).await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    // Cyclades' way; and what is not offered.
    let ask = |body: Value| central.post(&action, body);
    let body = ask(json!({"console": {"type": "vnc-ws"}}))
        .await
        .expect(200);
    let console = &body["console"];
    assert!(
        console["host"] == "127.0.0.1" && console["port"].is_u64(),
        "{body}"
    );
    ask(json!({"console": {"type": "vnc"}}))
        .await
        .fault(501, "notImplemented");
    ask(json!({"console": {"type": "tv"}}))
        .await
        .fault(400, "badRequest");
    // Nobody listens there any more: the client is told, and who it is that does not answer
    // stays inside.
    let body = ask(novnc.clone()).await.expect(200);
    let url = body["console"]["url"].as_str().unwrap().to_owned();
    let path = url.split_once("/console").unwrap().1;
    let (head, _) = upgrade(&central.base, &format!("/console{path}")).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    // Another project's server has no console, and one that is off has none.
    let stranger = central
        .ask(
            Method::POST,
            &action,
            Some(OTHER_TOKEN),
            Some(novnc.clone()),
        )
        .await;
    stranger.fault(404, "itemNotFound");
    ask(json!({"os-stop": null})).await.expect(202);
    idle(&central, &id, "SHUTOFF").await;
    ask(novnc).await.fault(409, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_in_vain_is_forgotten() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}/central.db", folder.path().display());
    let rapi = FakeRapi::start().await;
    let mut central = Central::on(rapi, folder, &database, NODES).await;
    central.create("late", &[]).await;
    let path = parameters_path(&central.rapi.last().body);
    let connection = Database::connect(&database).await.unwrap();
    connection
        .execute_unprepared("UPDATE one_shots SET expires_at = 1")
        .await
        .unwrap();
    central
        .ask(Method::GET, &path, None, None)
        .await
        .fault(404, "itemNotFound");
    // At every start, and every minute.
    central.stop().await;
    let central = Central::again(central).await;
    until("it to be forgotten", || async {
        let rows = connection
            .query_all_raw(Statement::from_string(
                connection.get_database_backend(),
                "SELECT * FROM one_shots",
            ))
            .await
            .unwrap();
        rows.is_empty()
    })
    .await;
    drop(central);
}

/// A network of alice's own, with room for NICs.
async fn own_network(central: &Central) -> String {
    let body = json!({"network": {"name": "own", "type": "MAC_FILTERED"}});
    let made = central
        .post("/network/v2.0/networks", body)
        .await
        .expect(201);
    let id = made["network"]["id"].as_str().unwrap().to_owned();
    let subnet = json!({"subnet": {"network_id": id, "cidr": "10.9.0.0/29"}});
    central
        .post("/network/v2.0/subnets", subnet)
        .await
        .expect(201);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_kept_for_a_server_that_comes_later() {
    let central = telling("").await;
    let network = own_network(&central).await;
    let ports = "/network/v2.0/ports";
    let body = json!({"port": {"network_id": network, "name": "kept",
        "fixed_ips": [{"ip_address": "10.9.0.4"}]}});
    let made = central.post(ports, body.clone()).await.expect(201);
    let port = &made["port"];
    assert_eq!(port["status"], "DOWN");
    assert_eq!(port["device_id"], "");
    assert_eq!(port["fixed_ips"][0]["ip_address"], "10.9.0.4");
    let id = port["id"].as_str().unwrap();
    let path = format!("{ports}/{id}");
    // Its address is taken.
    central.post(ports, body).await.fault(409, "conflict");
    // Nobody else may use it.
    let mut order = central.order("first", &[]).await;
    order["server"]["networks"] = json!([{ "port": id }]);
    let flavors = central
        .ask(
            Method::POST,
            "/compute/v2.0/servers",
            Some(OTHER_TOKEN),
            Some(order.clone()),
        )
        .await;
    flavors.fault(404, "itemNotFound");
    // Who gets no server keeps the port.
    central.rapi.set_mood(Mood::Drained);
    let servers = "/compute/v2.0/servers";
    let answer = central.post(servers, order.clone()).await;
    answer.fault(503, "serviceUnavailable");
    central.rapi.set_mood(Mood::Good);
    let back = central.get(&path).await.expect(200);
    assert_eq!(back["port"]["status"], "DOWN", "{back}");
    assert_eq!(back["port"]["fixed_ips"][0]["ip_address"], "10.9.0.4");
    let made = central.post(servers, order.clone()).await.expect(202);
    let server = made["server"]["id"].as_str().unwrap();
    let nics = central.rapi.last().body["nics"].clone();
    assert_eq!(nics[0]["name"], format!("snf-nic-{id}"));
    assert_eq!(nics[0]["ip"], "10.9.0.4");
    central.post(servers, order).await.fault(409, "conflict");
    idle(&central, server, "ACTIVE").await;
    let now = central.get(&path).await.expect(200);
    assert_eq!(now["port"]["device_id"], server);
    assert_eq!(now["port"]["status"], "ACTIVE");
    // A second one is plugged in later.
    let body = json!({"port": {"network_id": network}});
    let made = central.post(ports, body.clone()).await.expect(201);
    let second = made["port"]["id"].clone();
    let plug = json!({"interfaceAttachment": {"port_id": second}});
    central
        .post(&format!("{servers}/{server}/os-interface"), plug)
        .await
        .expect(200);
    idle(&central, server, "ACTIVE").await;
    let now = central.server(server).await;
    assert_eq!(now["attachments"].as_array().unwrap().len(), 2, "{now}");
    // A third is thrown away unused.
    let made = central.post(ports, body).await.expect(201);
    let third = made["port"]["id"].as_str().unwrap();
    central
        .delete(&format!("{ports}/{third}"))
        .await
        .expect(204);
    central
        .get(&format!("{ports}/{third}"))
        .await
        .fault(404, "itemNotFound");
    // In a public network only with an address that one holds.
    let public = central.id_of("/network/v2.0/networks", "bridged").await;
    let body = json!({"port": {"network_id": public}});
    central.post(ports, body).await.fault(403, "forbidden");
    let pool = central.id_of("/network/v2.0/networks", "public").await;
    let body = json!({"floatingip": {"floating_network_id": pool}});
    let made = central
        .post("/network/v2.0/floatingips", body)
        .await
        .expect(201);
    let address = &made["floatingip"]["floating_ip_address"];
    let body = json!({"port": {"network_id": pool, "fixed_ips": [{"ip_address": address}]}});
    let made = central.post(ports, body).await.expect(201);
    assert_eq!(made["port"]["fixed_ips"][0]["ip_address"], *address);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_labels_of_servers() {
    let central = telling("").await;
    let mut order = central.order("tagged", &[]).await;
    order["server"]["tags"] = json!(["blue", "blue", "old"]);
    let servers = "/compute/v2.0/servers";
    let made = central.post(servers, order.clone()).await.expect(202);
    assert_eq!(made["server"]["tags"], json!(["blue", "old"]));
    let id = made["server"]["id"].as_str().unwrap();
    let asked = central.rapi.last().body;
    assert_eq!(
        asked["tags"],
        json!(["cyclades:user:blue", "cyclades:user:old"])
    );
    let tags = format!("{servers}/{id}/tags");
    let early = central.put(&tags, json!({"tags": []})).await;
    early.fault(409, "buildInProgress");
    idle(&central, id, "ACTIVE").await;
    let body = central.get(&tags).await.expect(200);
    assert_eq!(body["tags"], json!(["blue", "old"]));
    let one = format!("{tags}/new one_");
    central.get(&one).await.fault(404, "itemNotFound");
    let added = central.ask(Method::PUT, &one, Some(TOKEN), None).await;
    assert_eq!(added.status, 201);
    let location = added.headers["location"].to_str().unwrap().to_owned();
    let url = format!("{}{one}", central.base).replace(' ', "%20");
    assert_eq!(location, url);
    let again = central.ask(Method::PUT, &one, Some(TOKEN), None).await;
    assert_eq!(again.status, 204);
    let there = central.get(&one).await;
    assert_eq!(there.status, 204);
    let status = there.headers["tag-status"].to_str().unwrap();
    assert!(["PENDADD", "ACTIVE"].contains(&status), "{status}");
    until("the tag in the instance", || async {
        central.get(&one).await.headers["tag-status"] == "ACTIVE"
    })
    .await;
    let name = format!("snf-{id}");
    let there = central.rapi.tags(&name);
    assert_eq!(there[2], "cyclades:user:new+one*", "{there}");
    central.delete(&one).await.expect(204);
    central.delete(&one).await.fault(404, "itemNotFound");
    let body = json!({"tags": ["green"]});
    let now = central.put(&tags, body).await.expect(200);
    assert_eq!(now["tags"], json!(["green"]));
    assert_eq!(central.server(id).await["tags"], json!(["green"]));
    for bad in [
        json!(["a/b"]),
        json!(["a,b"]),
        json!([""]),
        json!([5]),
        { json!(["x".repeat(61)]) },
        json!(["é".repeat(20)]),
    ] {
        let answer = central.put(&tags, json!({ "tags": bad })).await;
        let message = answer.fault(400, "badRequest");
        assert!(message.contains("tags[0]"), "{message}");
    }
    let many: Vec<String> = (0..51).map(|number| format!("t{number}")).collect();
    let answer = central.put(&tags, json!({"tags": many})).await;
    answer.fault(413, "overLimit");
    let fifty = json!({"tags": &many[..50]});
    central.put(&tags, fifty).await.expect(200);
    let more = central.ask(Method::PUT, &one, Some(TOKEN), None).await;
    more.fault(413, "overLimit");
    let stranger = central
        .ask(Method::GET, &tags, Some(OTHER_TOKEN), None)
        .await;
    stranger.fault(404, "itemNotFound");
    central.delete(&tags).await.expect(204);
    central.delete(&tags).await.fault(404, "itemNotFound");
    until("no tags in the instance", || async {
        central.rapi.tags(&name) == json!([])
    })
    .await;
    // Of fifty each, no call has more than Ganeti reads.
    let long = central.rapi.submissions();
    assert!(long.iter().all(|call| call.query.len() < 8000));
    // What Ganeti is not asked for is not shown either.
    central.rapi.set_mood(Mood::Drained);
    let answer = central.put(&tags, json!({"tags": ["red"]})).await;
    answer.fault(503, "serviceUnavailable");
    let body = central.get(&tags).await.expect(200);
    assert_eq!(body, json!({"tags": [], "statuses": []}));
    // A refused creation leaves none.
    central.rapi.set_mood(Mood::Drained);
    let answer = central.post(servers, order).await;
    answer.fault(503, "serviceUnavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_rescued_from_the_image_of_the_configuration() {
    let central = telling("[images]\nrescue = '/srv/rescue.iso'\n").await;
    let id = central.create("broken", &[]).await;
    idle(&central, &id, "ACTIVE").await;
    let action = format!("/compute/v2.0/servers/{id}/action");
    let running = central.post(&action, json!({"rescue": {}})).await;
    running.fault(409, "conflict");
    central
        .post(&action, json!({"os-stop": null}))
        .await
        .expect(202);
    idle(&central, &id, "SHUTOFF").await;
    let early = central.post(&action, json!({"unrescue": null})).await;
    early.fault(409, "conflict");
    let chosen = json!({"rescue": {"rescue_image_ref": "mine"}});
    central.post(&action, chosen).await.fault(400, "badRequest");
    for (name, order, image, rescued) in [
        ("rescue", "cdrom", "/srv/rescue.iso", true),
        ("unrescue", "default", "default", false),
    ] {
        central.post(&action, json!({ name: {} })).await.expect(202);
        assert_eq!(
            central.rapi.last().body,
            json!({"hvparams": {"boot_order": order, "cdrom_image_path": image}})
        );
        idle(&central, &id, "SHUTOFF").await;
        assert_eq!(central.server(&id).await["SNF:rescue"], rescued);
        let again = central.post(&action, json!({ name: {} })).await;
        again.fault(409, "conflict");
    }
    let without = telling("").await;
    let id = without.create("broken", &[]).await;
    let action = format!("/compute/v2.0/servers/{id}/action");
    let answer = without.post(&action, json!({"rescue": {}})).await;
    answer.fault(404, "featureNotEnabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_disks_are_volumes() {
    let central = telling("").await;
    let id = central.create("disked", &[]).await;
    idle(&central, &id, "ACTIVE").await;
    let server = central.server(&id).await;
    let volume = server["os-extended-volumes:volumes_attached"][0]["id"]
        .as_str()
        .unwrap();
    for version in ["v2", "v2.0", "v3"] {
        let all = central
            .get(&format!("/volume/{version}/volumes/detail"))
            .await
            .expect(200);
        let shown = &all["volumes"][0];
        assert_eq!(shown["id"], volume);
        assert_eq!(shown["status"], "in-use");
        assert_eq!(shown["size"], 1);
        assert_eq!(shown["volume_type"], "file");
        assert_eq!(shown["attachments"][0]["server_id"], id.as_str());
    }
    let path = format!("/volume/v3/volumes/{volume}");
    let body = json!({"volume": {"name": "root"}});
    let renamed = central.put(&path, body).await.expect(200);
    assert_eq!(renamed["volume"]["name"], "root");
    central.delete(&path).await.fault(409, "conflict");
    let body = json!({"volume": {"size": 1}});
    let answer = central.post("/volume/v3/volumes", body).await;
    answer.fault(501, "notImplemented");
    let stranger = central
        .ask(Method::GET, &path, Some(OTHER_TOKEN), None)
        .await;
    stranger.fault(404, "itemNotFound");
    let attachments = format!("/compute/v2.0/servers/{id}/os-volume_attachments");
    let body = central.get(&attachments).await.expect(200);
    assert_eq!(body["volumeAttachments"][0]["volumeId"], volume);
    central
        .get(&format!("{attachments}/{volume}"))
        .await
        .expect(200);
    let types = central.get("/volume/v3/types").await.expect(200);
    assert_eq!(types["volume_types"][0]["name"], "file");
    central.get("/volume").await.expect(300);
    central
        .delete(&format!("/compute/v2.0/servers/{id}"))
        .await
        .expect(204);
    until("the volume to be gone", || async {
        let all = central.get("/volume/v3/volumes").await.expect(200);
        all["volumes"].as_array().unwrap().is_empty()
    })
    .await;
    assert_eq!(
        central.get(&path).await.expect(200)["volume"]["status"],
        "deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_for_administrators() {
    let central = telling("").await;
    let compute = "/compute/v2.0";
    for path in ["os-hypervisors", "os-hosts", "os-services"] {
        let path = format!("{compute}/{path}");
        central.get(&path).await.fault(403, "forbidden");
    }
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    database
        .execute_unprepared("UPDATE users SET admin = 1")
        .await
        .unwrap();
    central.create("running", &[]).await;
    let path = format!("{compute}/os-hypervisors/detail");
    // What is known of a token is two seconds old at most.
    until("the role", async || central.get(&path).await.status == 200).await;
    let all = central.get(&path).await.expect(200);
    let host = &all["hypervisors"][0];
    assert_eq!(host["hypervisor_hostname"], "cluster");
    assert_eq!(
        (&host["state"], &host["status"]),
        (&json!("up"), &json!("enabled"))
    );
    assert!(host["memory_mb"].as_i64().unwrap() > 0, "{host}");
    let one = format!("{compute}/os-hypervisors/{}", host["id"]);
    central.get(&one).await.expect(200);
    let hosts = central
        .get(&format!("{compute}/os-hosts"))
        .await
        .expect(200);
    assert_eq!(hosts["hosts"][0]["host_name"], "cluster");
    central
        .get(&format!("{compute}/os-hosts/cluster"))
        .await
        .expect(200);
    central
        .get(&format!("{compute}/os-hosts/nowhere"))
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_much_as_may_hang_on_a_server_is_shown() {
    let central = Central::start().await;
    support::hanging::as_much_as_there_may_be_is_shown(&central).await;
}
