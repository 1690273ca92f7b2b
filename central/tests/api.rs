//! The API over HTTP, against SQLite and a RAPI that answers as the real one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::rapi::Mood;
use support::{Central, OTHER_TOKEN, TOKEN, until};

#[tokio::test]
async fn a_password_gets_a_token_and_a_wrong_one_does_not() {
    let central = Central::start().await;
    let log_in = |password: &str, tenant: Value| {
        json!({"auth": {
            "passwordCredentials": {"username": "alice", "password": password},
            "tenantName": tenant,
        }})
    };
    let path = "/identity/v2.0/tokens";
    let ask = async |body| central.ask(Method::POST, path, None, Some(body)).await;
    let access = ask(log_in("rabbit", json!("wonderland"))).await.expect(200)["access"].take();
    let token = access["token"]["id"].as_str().unwrap();
    assert!(token.len() >= 43, "{token}");
    assert_eq!(access["user"]["name"], "alice");
    let servers = central
        .ask(Method::GET, "/compute/v2.0/servers", Some(token), None)
        .await;
    servers.expect(200);
    // No scope: the user's own project.
    let own = ask(log_in("rabbit", Value::Null)).await.expect(200);
    assert_eq!(own["access"]["token"]["tenant"]["name"], "wonderland");
    for (password, tenant) in [
        ("Rabbit", json!("wonderland")),
        ("rabbit", json!("elsewhere")),
    ] {
        ask(log_in(password, tenant))
            .await
            .fault(401, "unauthorized");
    }
    // A token that was taken back is worth nothing.
    let own_path = format!("{path}/{token}");
    central
        .ask(Method::DELETE, &own_path, Some(token), None)
        .await
        .expect(204);
    let after = central
        .ask(Method::GET, "/compute/v2.0/servers", Some(token), None)
        .await;
    after.fault(401, "unauthorized");
}

#[tokio::test]
async fn who_guesses_passwords_is_kept_waiting() {
    let central = Central::start().await;
    let ask = async |user: &str, password: &str| {
        let body = json!({"auth": {"passwordCredentials": {
            "username": user, "password": password}}});
        let path = "/identity/v2.0/tokens";
        central.ask(Method::POST, path, None, Some(body)).await
    };
    let mut refused = None;
    for _ in 0..60 {
        let answer = ask("alice", "wrong").await;
        if answer.status != 401 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("an end to guessing");
    assert!(refused.headers.contains_key("retry-after"));
    refused.fault(429, "tooManyRequests");
    // Nobody else is kept waiting, nor who has a token.
    ask("bob", "builder").await.expect(200);
    central.get("/compute/v2.0/servers").await.expect(200);
}

#[tokio::test]
async fn keystone_v3_logs_in_with_a_scope_and_tells_the_catalog() {
    let central = Central::start().await;
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "alice", "domain": {"id": "default"}, "password": "rabbit"}}},
        "scope": {"project": {"name": "wonderland", "domain": {"id": "default"}}},
    }});
    let answer = central
        .ask(Method::POST, "/identity/v3/auth/tokens", None, Some(body))
        .await;
    let token = answer.headers["x-subject-token"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = answer.expect(201);
    let catalog = body["token"]["catalog"].as_array().unwrap();
    let compute = catalog
        .iter()
        .find(|entry| entry["type"] == "compute")
        .unwrap();
    let url = compute["endpoints"][0]["url"].as_str().unwrap();
    assert_eq!(url, format!("{}/compute/v2.0", central.base));
    let path = url.strip_prefix(&central.base).unwrap();
    central
        .ask(
            Method::GET,
            &format!("{path}/servers/detail"),
            Some(&token),
            None,
        )
        .await
        .expect(200);
}

#[tokio::test]
async fn the_catalog_of_a_mount_stays_in_that_mount() {
    let central = Central::start().await;
    let path = "/cyclades/identity/v2.0/tokens";
    let body = json!({"auth": {"token": {"id": TOKEN}}});
    let access = central
        .ask(Method::POST, path, None, Some(body))
        .await
        .expect(200)["access"]
        .take();
    // kamaki goes on with the very token it has.
    assert_eq!(access["token"]["id"], TOKEN);
    for service in access["serviceCatalog"].as_array().unwrap() {
        let url = service["endpoints"][0]["publicURL"].as_str().unwrap();
        assert!(
            url.starts_with(&format!("{}/cyclades/", central.base)),
            "{url}"
        );
    }
    // Who is nobody may see where the services are.
    let public = central
        .ask(Method::POST, path, None, None)
        .await
        .expect(200);
    assert!(public["access"]["serviceCatalog"].is_array());
    assert!(public["access"]["token"].is_null());
}

#[tokio::test]
async fn creating_a_server_brings_its_networks_into_the_cluster_first() {
    let central = Central::start().await;
    let id = central.create("web", &["bridged", "routed"]).await;
    let calls = central.rapi.submissions();
    let paths: Vec<&str> = calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/2/networks",
            "/2/networks/snf-net-1/connect",
            "/2/networks",
            "/2/networks/snf-net-2/connect",
            "/2/instances"
        ]
    );
    assert_eq!(
        calls[0].body,
        json!({
            "network_name": "snf-net-1", "network": "10.66.1.0/24", "mac_prefix": "aa:00:00",
            "conflicts_check": false, "tags": ["bridged", "nfdhcpd", "public"],
            "gateway": "10.66.1.1", "network6": "fd66:1::/64", "gateway6": "fd66:1::1",
        })
    );
    assert_eq!(calls[1].body["network_link"], "br0");
    assert_eq!(calls[1].body["depends"], json!([[7, ["success"]]]));
    assert_eq!(calls[3].body["network_mode"], "routed");
    assert_eq!(calls[3].body["network_link"], "100");
    let create = &calls[4].body;
    assert_eq!(create["name"], format!("snf-{id}"));
    assert_eq!(create["os"], "snf-image+default");
    assert_eq!(
        create["nics"],
        json!([
            {"name": "snf-nic-1", "network": "snf-net-1", "ip": "10.66.1.2"},
            {"name": "snf-nic-2", "network": "snf-net-2", "ip": "10.66.2.2"},
        ])
    );
    assert_eq!(
        create["disks"],
        json!([{"name": "snf-vol-1", "size": 1024}])
    );
    let osparams = json!({"img_id": "/srv/images/busybox.img", "img_format": "diskdump"});
    assert_eq!(create["osparams"], osparams);
    assert!(create.get("hvparams").is_none());
    let depends = json!([
        [8, ["canceled", "success", "error"]],
        [10, ["canceled", "success", "error"]]
    ]);
    assert_eq!(create["depends"], depends);

    let server = central.server(&id).await;
    assert_eq!(server["status"], "BUILD");
    assert_eq!(server["SNF:task_state"], "BUILDING");
    assert_eq!(server["addresses"], json!({}));

    // The second one finds the networks there and gets the next addresses.
    central.create("web2", &["bridged"]).await;
    let last = central.rapi.last();
    assert_eq!(last.path, "/2/instances");
    assert_eq!(last.body["nics"][0]["ip"], "10.66.1.3");
    assert_eq!(central.rapi.submissions().len(), 6);
}

#[tokio::test]
async fn an_address_can_be_asked_for_once() {
    let central = Central::start().await;
    let mut order = central.order("a", &["bridged"]).await;
    let with = |order: &mut Value, address: &str| {
        order["server"]["networks"][0]["fixed_ip"] = json!(address);
    };
    with(&mut order, "10.66.1.77");
    let path = "/compute/v2.0/servers";
    central.post(path, order.clone()).await.expect(202);
    assert_eq!(central.rapi.last().body["nics"][0]["ip"], "10.66.1.77");
    central
        .post(path, order.clone())
        .await
        .fault(409, "conflict");
    for address in ["10.66.1.1", "10.66.1.255", "10.67.0.1"] {
        with(&mut order, address);
        central
            .post(path, order.clone())
            .await
            .fault(400, "badRequest");
    }
    with(&mut order, "fd66:1::7");
    let message = central
        .post(path, order.clone())
        .await
        .fault(400, "badRequest");
    assert!(
        message.contains("server.networks[0].fixed_ip: \"fd66:1::7\""),
        "{message}"
    );
}

#[tokio::test]
async fn a_full_subnet_is_a_conflict_and_leaves_nothing_behind() {
    let central = Central::start().await;
    // A /29 with a gateway has five.
    for index in 0..5 {
        central.create(&format!("s{index}"), &["routed"]).await;
    }
    let order = central.order("one-too-many", &["bridged", "routed"]).await;
    central
        .post("/compute/v2.0/servers", order)
        .await
        .fault(409, "conflict");
    let servers = central.get("/compute/v2.0/servers").await.expect(200);
    assert_eq!(servers["servers"].as_array().unwrap().len(), 5);
    let ports = central.get("/network/v2.0/ports").await.expect(200);
    assert_eq!(ports["ports"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn without_room_in_any_cluster_a_server_is_refused() {
    let central = Central::start().await;
    let mut order = central.order("huge", &[]).await;
    order["server"]["flavorRef"] = json!(central.id_of("/compute/v2.0/flavors", "huge").await);
    central
        .post("/compute/v2.0/servers", order)
        .await
        .fault(503, "serviceUnavailable");
    assert!(central.rapi.submissions().is_empty());
}

#[tokio::test]
async fn when_ganeti_says_no_nothing_is_kept_and_reads_go_on() {
    let central = Central::start().await;
    for mood in [Mood::Drained, Mood::Unauthorized] {
        central.rapi.set_mood(mood);
        let order = central.order("web", &["bridged"]).await;
        let answer = central.post("/compute/v2.0/servers", order).await;
        assert_eq!(answer.headers["retry-after"], "5");
        answer.fault(503, "serviceUnavailable");
        let servers = central
            .get("/compute/v2.0/servers/detail")
            .await
            .expect(200);
        assert_eq!(servers, json!({"servers": []}));
        let ports = central.get("/network/v2.0/ports").await.expect(200);
        assert_eq!(ports, json!({"ports": []}));
    }
    central.rapi.set_mood(Mood::Good);
    central.create("web", &["bridged"]).await;
    // The address of the first attempts is free again.
    assert_eq!(central.rapi.last().body["nics"][0]["ip"], "10.66.1.2");
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_server() {
    let central = Central::start().await;
    central.create("first", &["bridged"]).await;
    central.rapi.set_mood(Mood::AnswersLost);
    let order = central.order("web", &["bridged"]).await;
    central
        .post("/compute/v2.0/servers", order)
        .await
        .expect(202);
    let before = central.rapi.submissions().len();
    central.rapi.set_mood(Mood::Good);
    // The sweeper finds the job by its reason. What proves it: the server can be removed,
    // and the removal waits for that job.
    let id = central.id_of("/compute/v2.0/servers", "web").await;
    let path = format!("/compute/v2.0/servers/{id}");
    central.delete(&path).await.expect(204);
    until("the removal to be submitted", async || {
        central.rapi.last().method == "DELETE"
    })
    .await;
    let calls = central.rapi.submissions();
    assert_eq!(calls.len(), before + 1, "{calls:?}");
    let create = &calls[calls.len() - 2];
    let remove = &calls[calls.len() - 1];
    assert_eq!(create.path, "/2/instances");
    let depends = json!([[create.job, ["canceled", "success", "error"]]]);
    assert_eq!(remove.body["depends"], depends);
}

#[tokio::test]
async fn others_servers_networks_and_ports_are_not_there() {
    let central = Central::start().await;
    let id = central.create("web", &["bridged"]).await;
    let port = central.get("/network/v2.0/ports").await.expect(200)["ports"][0]["id"].take();
    let port = port.as_str().unwrap();
    let ask = async |method, path: String, body| {
        central.ask(method, &path, Some(OTHER_TOKEN), body).await
    };
    for path in [
        format!("/compute/v2.0/servers/{id}"),
        format!("/compute/v2.0/servers/{id}/metadata"),
        format!("/compute/v2.0/servers/{id}/ips"),
        format!("/compute/v2.0/servers/{id}/diagnostics"),
        format!("/network/v2.0/ports/{port}"),
    ] {
        ask(Method::GET, path, None)
            .await
            .fault(404, "itemNotFound");
    }
    let path = format!("/compute/v2.0/servers/{id}");
    let new = json!({"server": {"name": "mine"}});
    ask(Method::PUT, path.clone(), Some(new))
        .await
        .fault(404, "itemNotFound");
    ask(Method::DELETE, path.clone(), None)
        .await
        .fault(404, "itemNotFound");
    let stop = json!({"os-stop": null});
    ask(Method::POST, format!("{path}/action"), Some(stop))
        .await
        .fault(404, "itemNotFound");
    let list = ask(Method::GET, "/compute/v2.0/servers/detail".to_owned(), None).await;
    assert_eq!(list.expect(200), json!({"servers": []}));
    // Bob's private network is not Alice's.
    let networks = central.get("/network/v2.0/networks").await.expect(200);
    let names: Vec<&Value> = networks["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|network| &network["name"])
        .collect();
    assert_eq!(names, ["bridged", "routed", "public"]);
    let mut order = central.order("spy", &[]).await;
    order["server"]["networks"] = json!([{"uuid": "3"}]);
    central
        .post("/compute/v2.0/servers", order)
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test]
async fn faults_have_the_right_names_on_every_path() {
    let central = Central::start().await;
    central
        .get("/compute/v2.0/servers/999")
        .await
        .fault(404, "itemNotFound");
    central
        .get("/compute/v2.0/servers/abc")
        .await
        .fault(404, "itemNotFound");
    central
        .get("/compute/v2.0/nonsense")
        .await
        .fault(404, "itemNotFound");
    central.get("/nonsense").await.fault(404, "itemNotFound");
    let answer = central.put("/compute/v2.0/servers", json!({})).await;
    let allow = answer.headers["allow"].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    answer.fault(405, "notAllowed");
    let nobody = central
        .ask(Method::GET, "/compute/v2.0/servers", None, None)
        .await;
    nobody.fault(401, "unauthorized");
    // A token in the query would be in every log on the way.
    let path = format!("/compute/v2.0/servers?X-Auth-Token={TOKEN}");
    let nobody = central.ask(Method::GET, &path, None, None).await;
    nobody.fault(401, "unauthorized");
    let versions = central
        .ask(Method::GET, "/compute/", None, None)
        .await
        .expect(200);
    assert_eq!(versions["versions"][0]["id"], "v2.0");
    let id = central.get("/compute/v2.0/servers").await;
    assert!(id.headers.contains_key("x-compute-request-id"));
    central
        .ask(Method::GET, "/healthz", None, None)
        .await
        .expect(200);
    central
        .ask(Method::GET, "/readyz", None, None)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_bad_body_is_refused_with_its_field_and_never_a_500() {
    let central = Central::start().await;
    let good = central.order("x", &["bridged"]).await;
    let id = central.create("x", &["bridged"]).await;
    let create = "/compute/v2.0/servers".to_owned();
    let action = format!("/compute/v2.0/servers/{id}/action");
    let metadata = format!("/compute/v2.0/servers/{id}/metadata");
    let with = |field: &str, value: Value| {
        let mut order = good.clone();
        order["server"][field] = value;
        order
    };
    let cases = [
        (&create, json!([]), "body"),
        (&create, json!({}), "server"),
        (&create, json!({"server": 5}), "server: 5"),
        (&create, with("name", json!(7)), "server.name: 7"),
        (&create, with("name", json!("")), "server.name"),
        (&create, with("name", json!("a\u{0}b")), "server.name"),
        (&create, with("name", json!("é".repeat(256))), "server.name"),
        (
            &create,
            with("flavorRef", json!([1])),
            "server.flavorRef: [1]",
        ),
        (
            &create,
            with("imageRef", Value::Null),
            "server.imageRef: missing",
        ),
        (
            &create,
            with("networks", json!({"uuid": 1})),
            "server.networks",
        ),
        (
            &create,
            with("networks", json!([1])),
            "server.networks[0]: 1",
        ),
        (
            &create,
            with("networks", json!([{}])),
            "server.networks[0].uuid",
        ),
        (
            &create,
            with("networks", json!([{"uuid": {}}])),
            "server.networks[0].uuid: {}",
        ),
        (&create, with("metadata", json!([1])), "server.metadata"),
        (
            &create,
            with("metadata", json!({"a": 1})),
            "server.metadata.a: 1",
        ),
        (
            &create,
            with("max_count", json!(-1)),
            "server.max_count: -1",
        ),
        (&create, with("key_name", json!({})), "server.key_name: {}"),
        (&action, json!({}), "0 actions"),
        (&action, json!({"start": {}, "reboot": {}}), "2 actions"),
        (&action, json!(["start"]), "body"),
        (&action, json!({"fly": {}}), "fly"),
        (&action, json!({"reboot": []}), "body.reboot: []"),
        (
            &action,
            json!({"reboot": {"type": "LOUD"}}),
            "body.reboot.type: \"LOUD\"",
        ),
        (
            &metadata,
            json!({"metadata": {"a": null}}),
            "metadata.a: null",
        ),
        (&metadata, json!({"metadata": {"": "x"}}), "metadata"),
    ];
    for (path, body, expected) in cases {
        let message = central
            .post(path, body.clone())
            .await
            .fault(400, "badRequest");
        assert!(message.contains(expected), "{body}: {message}");
    }
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in [
        "",
        "{",
        "\u{fffd}",
        "null",
        deep.as_str(),
        "{\"server\": 1e999}",
    ] {
        let answer = central.ask_raw(Method::POST, &create, text.into()).await;
        answer.fault(400, "badRequest");
    }
    let invalid = vec![b'{', 0xff, 0xfe, b'}'];
    central
        .ask_raw(Method::POST, &create, invalid)
        .await
        .fault(400, "badRequest");
    let long = vec![b' '; 600 << 10];
    central
        .ask_raw(Method::POST, &create, long)
        .await
        .fault(413, "overLimit");
    for name in [
        "rebuild",
        "create",
        "delete",
        "changePassword",
        "createImage",
    ] {
        let offered = central.post(&action, json!({ name: {} })).await;
        offered.fault(501, "notImplemented");
    }
}

#[tokio::test]
async fn a_server_that_is_being_built_takes_no_actions() {
    let central = Central::start().await;
    let id = central.create("web", &[]).await;
    for (mount, name) in [("", "os-start"), ("/cyclades", "start")] {
        let path = format!("{mount}/compute/v2.0/servers/{id}/action");
        let mut action = json!({});
        action[name] = json!({});
        central
            .post(&path, action)
            .await
            .fault(409, "buildInProgress");
    }
    // But it can be deleted; the removal waits for the creation.
    let path = format!("/compute/v2.0/servers/{id}");
    central.delete(&path).await.expect(204);
    central.delete(&path).await.expect(204);
    let removals: Vec<_> = central
        .rapi
        .submissions()
        .into_iter()
        .filter(|call| call.method == "DELETE")
        .collect();
    assert_eq!(removals.len(), 1);
    assert_eq!(central.server(&id).await["SNF:task_state"], "DESTROYING");
}

#[tokio::test]
async fn names_and_metadata_can_be_changed() {
    let central = Central::start().await;
    let id = central.create("web", &[]).await;
    let path = format!("/compute/v2.0/servers/{id}");
    let renamed = central
        .put(&path, json!({"server": {"name": "né 名"}}))
        .await;
    assert_eq!(renamed.expect(200)["server"]["name"], "né 名");
    let cyclades = format!("/cyclades{path}");
    let new = json!({"server": {"name": "web"}});
    assert_eq!(central.put(&cyclades, new).await.expect(204), Value::Null);

    let metadata = format!("{path}/metadata");
    let body = json!({"metadata": {"a": "1", "b": "2"}});
    central.post(&metadata, body).await.expect(200);
    let body = json!({"meta": {"b": "3"}});
    central
        .put(&format!("{metadata}/b"), body)
        .await
        .expect(200);
    central.delete(&format!("{metadata}/a")).await.expect(204);
    central
        .delete(&format!("{metadata}/a"))
        .await
        .fault(404, "itemNotFound");
    let all = central.get(&metadata).await.expect(200);
    assert_eq!(all, json!({"metadata": {"b": "3"}}));
    let all = central
        .put(&metadata, json!({"metadata": {"c": "4"}}))
        .await
        .expect(200);
    assert_eq!(all, json!({"metadata": {"c": "4"}}));
}

#[tokio::test]
async fn networks_and_subnets_have_their_rules() {
    let central = Central::start().await;
    let path = "/network/v2.0/networks";
    let create = async |body: Value| central.post(path, json!({"network": body})).await;
    let network = create(json!({"name": "mine"})).await.expect(201)["network"].take();
    assert_eq!(network["type"], "MAC_FILTERED");
    let id = network["id"].as_str().unwrap();
    create(json!({"type": "CUSTOM"}))
        .await
        .fault(403, "forbidden");
    create(json!({"type": "WIRELESS"}))
        .await
        .fault(400, "badRequest");
    let subnets = "/network/v2.0/subnets";
    let subnet = async |body: Value| {
        let mut body = body;
        if body.get("network_id").is_none() {
            body["network_id"] = json!(id);
        }
        central.post(subnets, json!({"subnet": body})).await
    };
    for (body, expected) in [
        (json!({}), "subnet.cidr"),
        (json!({"cidr": "10.0.0.0"}), "subnet.cidr"),
        (json!({"cidr": "10.0.0.1/24"}), "host bits"),
        (json!({"cidr": "10.0.0.0/30"}), "length"),
        (json!({"cidr": "fd00::/48"}), "/64"),
        (
            json!({"cidr": "10.0.0.0/24", "ip_version": 5}),
            "ip_version",
        ),
        (
            json!({"cidr": "10.0.0.0/24", "ip_version": 6}),
            "subnet.cidr",
        ),
        (
            json!({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.1.1"}),
            "subnet.gateway_ip",
        ),
        (
            json!({"cidr": "10.0.0.0/24", "dns_nameservers": ["x"]}),
            "dns_nameservers[0]",
        ),
        (
            json!({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.3"}]}),
            "allocation_pools[0]",
        ),
    ] {
        let message = subnet(body.clone()).await.fault(400, "badRequest");
        assert!(message.contains(expected), "{body}: {message}");
    }
    let made = subnet(json!({"cidr": "10.0.0.0/24"})).await.expect(201)["subnet"].take();
    assert_eq!(made["gateway_ip"], "10.0.0.1");
    subnet(json!({"cidr": "10.0.1.0/24"}))
        .await
        .fault(409, "conflict");
    subnet(json!({"cidr": "fd00:1::/64"})).await.expect(201);
    // Not in somebody else's network, and not in a public one.
    subnet(json!({"cidr": "10.0.1.0/24", "network_id": "3"}))
        .await
        .fault(404, "itemNotFound");
    subnet(json!({"cidr": "10.0.1.0/24", "network_id": "1"}))
        .await
        .fault(403, "forbidden");

    central.create("inside", &["mine"]).await;
    let add = central
        .rapi
        .submissions()
        .into_iter()
        .find(|call| call.path == "/2/networks")
        .unwrap();
    assert_eq!(add.body["network"], "10.0.0.0/24");
    assert_eq!(
        add.body["tags"],
        json!(["nfdhcpd", "private", "private-filtered"])
    );
    // The prefix of the pool, not the common one that the seed's private network did not get.
    assert_eq!(add.body["mac_prefix"], "aa:00:20");
    let subnet_path = format!("{subnets}/{}", made["id"].as_str().unwrap());
    central.delete(&subnet_path).await.fault(409, "conflict");
    central
        .delete(&format!("{path}/{id}"))
        .await
        .fault(409, "conflict");
    central
        .delete(&format!("{path}/1"))
        .await
        .fault(403, "forbidden");
    let empty = create(json!({})).await.expect(201)["network"]["id"].take();
    let empty = format!("{path}/{}", empty.as_str().unwrap());
    central.delete(&empty).await.expect(204);
    central.delete(&empty).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let central = Central::start().await;
    for index in 0..5 {
        central.create(&format!("s{index}"), &[]).await;
    }
    let mut path = "/compute/v2.0/servers?limit=2".to_owned();
    let mut names = Vec::new();
    loop {
        let body = central.get(&path).await.expect(200);
        for server in body["servers"].as_array().unwrap() {
            names.push(server["name"].as_str().unwrap().to_owned());
        }
        let Some(next) = body["servers_links"][0]["href"].as_str() else {
            break;
        };
        path = next.strip_prefix(&central.base).unwrap().to_owned();
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4"]);
    for bad in [
        "limit=x",
        "limit=-1",
        "marker=x",
        "changes-since=never",
        "status=HAPPY",
    ] {
        let path = format!("/compute/v2.0/servers?{bad}");
        central.get(&path).await.fault(400, "badRequest");
    }
    let since = "/compute/v2.0/servers/detail?changes-since=2020-01-01T00:00:00Z";
    let all = central.get(since).await.expect(200);
    assert_eq!(all["servers"].as_array().unwrap().len(), 5);
    let named = central
        .get("/compute/v2.0/servers?name=s3")
        .await
        .expect(200);
    assert_eq!(named["servers"].as_array().unwrap().len(), 1);
}

/// A central whose jobs succeed, followed without a broker, and a server that is up.
async fn with_server() -> (Central, String) {
    let central = Central::start().await;
    central.rapi.succeed();
    let id = central.create("web", &["bridged"]).await;
    idle(&central, &id, "ACTIVE").await;
    (central, id)
}

/// Waits until a server has a status and nothing more to do.
async fn idle(central: &Central, id: &str, status: &str) {
    until(status, async || {
        let server = central.server(id).await;
        server["status"] == status && server["SNF:task_state"] == ""
    })
    .await;
}

async fn gone(central: &Central, id: &str) {
    until("DELETED", async || {
        central.server(id).await["status"] == "DELETED"
    })
    .await;
}

#[tokio::test]
async fn without_a_broker_jobs_are_asked_for() {
    let (central, id) = with_server().await;
    let server = central.server(&id).await;
    let addresses = server["addresses"]["bridged"].as_array().unwrap();
    assert_eq!(addresses[0]["addr"], "10.66.1.2");
    let v6 = addresses[1]["addr"].as_str().unwrap();
    assert!(v6.starts_with("fd66:1::a800:"), "{v6}");
    let path = format!("/compute/v2.0/servers/{id}");
    let action = format!("{path}/action");
    central
        .post(&action, json!({"os-stop": null}))
        .await
        .expect(202);
    idle(&central, &id, "SHUTOFF").await;
    let cyclades = central.get(&format!("/cyclades{path}")).await.expect(200);
    assert_eq!(cyclades["server"]["status"], "STOPPED");
    central.delete(&path).await.expect(204);
    gone(&central, &id).await;
}

#[tokio::test]
async fn a_resize_keeps_the_disk_and_ends_with_the_new_flavor() {
    let (central, id) = with_server().await;
    let small = central.id_of("/compute/v2.0/flavors", "small").await;
    let path = format!("/compute/v2.0/servers/{id}/action");
    let resize = json!({"resize": {"flavorRef": small}});
    central
        .post(&path, resize.clone())
        .await
        .fault(409, "conflict");
    central
        .post(&path, json!({"os-stop": null}))
        .await
        .expect(202);
    idle(&central, &id, "SHUTOFF").await;
    central.post(&path, resize.clone()).await.expect(202);
    assert_eq!(central.server(&id).await["status"], "RESIZE");
    let body = json!({"beparams": {"vcpus": 2, "minmem": 256, "maxmem": 256}});
    assert_eq!(central.rapi.last().body, body);
    idle(&central, &id, "SHUTOFF").await;
    assert_eq!(central.server(&id).await["flavor"]["id"], small.as_str());
    central.post(&path, resize).await.fault(400, "badRequest");
}

#[tokio::test]
async fn nics_come_and_go() {
    let (central, id) = with_server().await;
    let interfaces = format!("/compute/v2.0/servers/{id}/os-interface");
    let body = json!({"interfaceAttachment": {"net_id": "2"}});
    let made = central.post(&interfaces, body).await.expect(200)["interfaceAttachment"].take();
    assert_eq!(made["port_state"], "BUILD");
    let change = central.rapi.last().body;
    assert_eq!(change["hotplug"], true);
    assert_eq!(change["nics"][0][2]["ip"], "10.66.2.2");
    idle(&central, &id, "ACTIVE").await;
    let port = made["port_id"].as_str().unwrap();
    let shown = central
        .get(&format!("{interfaces}/{port}"))
        .await
        .expect(200);
    assert_eq!(shown["interfaceAttachment"]["port_state"], "ACTIVE");
    let server = central.server(&id).await;
    assert_eq!(server["addresses"]["routed"][0]["addr"], "10.66.2.2");
    // By the network's own words.
    let path = format!("/network/v2.0/ports/{port}");
    central.delete(&path).await.expect(204);
    idle(&central, &id, "ACTIVE").await;
    central.get(&path).await.fault(404, "itemNotFound");
    let ports = central
        .get(&format!("/network/v2.0/ports?device_id={id}"))
        .await
        .expect(200);
    assert_eq!(ports["ports"].as_array().unwrap().len(), 1);
    // Its address is free again, here for a server that does not run.
    let action = format!("/compute/v2.0/servers/{id}/action");
    central
        .post(&action, json!({"os-stop": null}))
        .await
        .expect(202);
    idle(&central, &id, "SHUTOFF").await;
    let body = json!({"port": {"network_id": "2", "device_id": id,
                               "fixed_ips": [{"ip_address": "10.66.2.2"}]}});
    central.post("/network/v2.0/ports", body).await.expect(201);
    assert!(central.rapi.last().body.get("hotplug").is_none());
}

#[tokio::test]
async fn a_floating_ip_outlives_the_servers_it_was_on() {
    let (central, id) = with_server().await;
    let path = "/network/v2.0/floatingips";
    let body = json!({"floatingip": {"floating_network_id": "4"}});
    let made = central.post(path, body).await.expect(201)["floatingip"].take();
    assert_eq!(made["floating_ip_address"], "192.0.2.2");
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let other = central
        .ask(Method::GET, &one, Some(OTHER_TOKEN), None)
        .await;
    other.fault(404, "itemNotFound");
    let action = format!("/compute/v2.0/servers/{id}/action");
    let add = json!({"addFloatingIp": {"address": "192.0.2.2"}});
    central.post(&action, add.clone()).await.expect(202);
    idle(&central, &id, "ACTIVE").await;
    let shown = central.get(&one).await.expect(200)["floatingip"].take();
    assert_eq!(shown["instance_id"], id.as_str());
    central.post(&action, add).await.fault(409, "conflict");
    central.delete(&one).await.fault(409, "conflict");
    let server = central.server(&id).await;
    assert_eq!(
        server["addresses"]["public"][0]["OS-EXT-IPS:type"],
        "floating"
    );
    // The older service tells the same, in its own words.
    let old = format!(
        "/compute/v2.0/os-floating-ips/{}",
        made["id"].as_str().unwrap()
    );
    let old = central.get(&old).await.expect(200);
    assert_eq!(old["floating_ip"]["ip"], "192.0.2.2");

    let detach = json!({"floatingip": {"port_id": null}});
    central.put(&one, detach).await.expect(200);
    idle(&central, &id, "ACTIVE").await;
    let shown = central.get(&one).await.expect(200)["floatingip"].take();
    assert_eq!(shown["port_id"], Value::Null);
    // On again, by the port that the server has; then the server goes.
    let ports = central.get("/network/v2.0/ports").await.expect(200);
    let attach = json!({"floatingip": {"port_id": ports["ports"][0]["id"]}});
    central.put(&one, attach).await.expect(200);
    idle(&central, &id, "ACTIVE").await;
    central
        .delete(&format!("/compute/v2.0/servers/{id}"))
        .await
        .expect(204);
    gone(&central, &id).await;
    let shown = central.get(&one).await.expect(200)["floatingip"].take();
    assert_eq!(shown["instance_id"], Value::Null);
    central.delete(&one).await.expect(204);
    central.get(&one).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn keypairs_are_checked_and_counted() {
    let central = Central::start().await;
    let path = "/compute/v2.0/os-keypairs";
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3nT0k4d1sN1mXyZ9fQ0vJ8b5m7QkzG8m8WlB8fTQ6E a@b";
    let create = async |body: Value| central.post(path, json!({"keypair": body})).await;
    let made = create(json!({"name": "mine", "public_key": key}))
        .await
        .expect(200);
    assert_eq!(made["keypair"]["public_key"], key);
    create(json!({"name": "mine", "public_key": key}))
        .await
        .fault(409, "conflict");
    // As files have it: line ends, a byte order mark, a tab before the comment.
    for (number, file) in [
        format!("{key}\n"),
        format!("{key}\r\n\n"),
        format!("\u{feff}{key}\n"),
        format!("  {}\n", key.replace(' ', "\t")),
    ]
    .iter()
    .enumerate()
    {
        let body = json!({"name": format!("file{number}"), "public_key": file});
        let made = create(body).await.expect(200);
        assert_eq!(made["keypair"]["public_key"], key, "{file:?}");
        let path = format!("{path}/file{number}");
        central.delete(&path).await.expect(202);
    }
    let one = format!("{path}/my.key.json");
    create(json!({"name": "my.key.json", "public_key": key}))
        .await
        .expect(200);
    let shown = central.get(&one).await.expect(200);
    assert_eq!(shown["keypair"]["name"], "my.key.json");
    central.delete(&one).await.expect(202);
    for bad in [
        "",
        &format!("{key}\n{key}\n"),
        "ssh-ed25519",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "ssh-ed25519 ???",
    ] {
        let body = json!({"name": "x", "public_key": bad});
        let message = create(body).await.fault(400, "badRequest");
        assert!(message.contains("keypair.public_key"), "{message}");
    }
    let generated = create(json!({"name": "made"})).await.expect(200);
    let private = generated["keypair"]["private_key"].as_str().unwrap();
    assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    let shown = central.get(&format!("{path}/made")).await.expect(200);
    assert_eq!(shown["keypair"].get("private_key"), None);
    central.delete(&format!("{path}/made")).await.expect(202);
    central
        .delete(&format!("/cyclades{path}/mine"))
        .await
        .expect(204);
    // Some fall over with more than ten.
    for index in 0..12 {
        let body = json!({"name": format!("k{index}"), "public_key": key});
        create(body).await.expect(200);
    }
    let mut order = central.order("x", &[]).await;
    order["server"]["key_name"] = json!("nobodys");
    central
        .post("/compute/v2.0/servers", order)
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test]
async fn quotas_are_kept_to_exactly() {
    let central = Central::start().await;
    let ask =
        async |method, path: &str, body| central.ask(method, path, Some(OTHER_TOKEN), body).await;
    let order = central.order("q", &[]).await;
    // Many at once: two are within the quota, whoever they are.
    let servers = "/compute/v2.0/servers";
    let all = futures_util::future::join_all(
        (0..8).map(|_| ask(Method::POST, servers, Some(order.clone()))),
    )
    .await;
    let made = all.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(made, 2);
    for answer in all {
        if answer.status != 202 {
            let message = answer.fault(413, "overLimit");
            assert!(message.contains("quota: servers"), "{message}");
        }
    }
    let limits = ask(Method::GET, "/compute/v2.0/limits", None)
        .await
        .expect(200);
    assert_eq!(limits["limits"]["absolute"]["maxTotalInstances"], 2);
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 2);
    let body = json!({"floatingip": {}});
    let path = "/network/v2.0/floatingips";
    ask(Method::POST, path, Some(body.clone()))
        .await
        .expect(201);
    ask(Method::POST, path, Some(body))
        .await
        .fault(413, "overLimit");
    let body = json!({"network": {}});
    let path = "/network/v2.0/networks";
    ask(Method::POST, path, Some(body.clone()))
        .await
        .expect(201);
    ask(Method::POST, path, Some(body))
        .await
        .fault(413, "overLimit");
    let quotas = ask(Method::GET, "/cyclades/account/v1.0/quotas", None)
        .await
        .expect(200);
    let project = quotas.as_object().unwrap().values().next().unwrap();
    assert_eq!(project["cyclades.vm"]["usage"], 2);
    // Nobody else's quota.
    central.create("mine", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_sees_what_is_asked() {
    let mut central = Central::start().await;
    central.stop().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    central.config.metrics = Some(address);
    let central = Central::again(central).await;
    let scrape = async || {
        let answer = reqwest::get(format!("http://{address}/metrics")).await;
        answer.unwrap().text().await.unwrap()
    };
    let before = scrape().await;
    assert!(before.ends_with("# EOF\n"), "{before}");
    for id in ["471100", "471101"] {
        let path = format!("/compute/v2.0/servers/{id}");
        central.get(&path).await.fault(404, "itemNotFound");
    }
    central
        .get("/no/such/path")
        .await
        .fault(404, "itemNotFound");
    let brew = reqwest::Method::from_bytes(b"BREW").unwrap();
    let _ = central.ask(brew, "/no/such/path", None, None).await;
    let after = scrape().await;
    let count = |labels: &str| {
        let start = format!("snf_central_requests_total{{{labels}}} ");
        let line = after.lines().find_map(|line| line.strip_prefix(&start));
        line.map(str::to_owned)
    };
    // By pattern, not by path: what clients invent makes no labels.
    let route = r#"method="GET",route="/compute/v2.0/servers/{id}",status="404""#;
    assert_eq!(count(route).as_deref(), Some("2"), "{after}");
    assert_eq!(
        count(r#"method="GET",route="none",status="404""#).as_deref(),
        Some("1"),
        "{after}"
    );
    assert!(
        !after.contains("4711") && !after.contains("BREW"),
        "{after}"
    );
    assert!(
        after.contains("snf_central_request_duration_seconds_bucket"),
        "{after}"
    );
}
