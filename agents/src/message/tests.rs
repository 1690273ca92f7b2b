//! The messages as a dispatcher meets them.

use serde_json::{Value, json};

use super::*;

fn op() -> Value {
    json!({
        "type": "ganeti-op-status",
        "event_time": [1795364213, 468815],
        "instance": "snf-1",
        "operation": "OP_INSTANCE_CREATE",
        "status": "success",
        "jobId": 7,
        "cluster": "cluster.gnt.lab",
        "logmsg": "* starting instance...",
        "result": ["node1.gnt.lab"],
        "job_fields": {"nics": [], "disks": [{"size": 64}], "hvparams": null, "beparams": {"vcpus": 1}},
        "tags": [],
        "instance_nics": [{"ip": "10.66.1.7", "name": "snf-nic-1", "mac": "aa:00:00:e1:87:fc",
            "mode": "bridged", "network": "net-br", "link": "br0",
            "uuid": "55ef7b59-0918-45ef-b63d-c4266f7ab9bc", "firewall": "unprotected"}],
        "instance_disks": [{"name": "snf-1-vol0", "size": 64,
            "uuid": "017af7e9-e3f6-4c2a-ad28-a8f79f7be32b"}],
        "instance_hvparams": {"boot_order": "disk", "cdrom_image_path": ""}
    })
}

fn all() -> Vec<(Value, &'static str)> {
    vec![
        (op(), "ganeti.snf.event.op"),
        (
            json!({
                "type": "ganeti-network-status", "event_time": [1, 0], "network": "snf-net-5",
                "operation": "OP_NETWORK_CONNECT", "status": "success", "jobId": 46,
                "cluster": "c", "logmsg": null, "result": null,
                "job_fields": {"subnet": null, "gateway": null, "add_reserved_ips": null,
                    "remove_reserved_ips": ["10.66.5.9"], "group_name": "default"}
            }),
            "ganeti.snf.event.network",
        ),
        (
            json!({
                "type": "ganeti-net-status", "event_time": [1, 999_999], "instance": "snf-1",
                "nics": [{"ip": "10.66.1.7", "ipv6": "fd66:1::a800:ff:fee1:87fc",
                    "mac": "aa:00:00:e1:87:fc", "link": "br0", "network": "net-br",
                    "firewall": "protected"}]
            }),
            "ganeti.snf.event.net",
        ),
        (
            json!({
                "type": "image-copy-progress", "event_time": [1, 0], "instance": "snf-1",
                "progress": 55.4, "position": 10, "total": 20
            }),
            "ganeti.snf.event.progress",
        ),
        (
            json!({
                "type": "ganeti-cluster-status", "event_time": [1, 0],
                "operation": "OP_CLUSTER_SET_PARAMS", "status": "success", "jobId": 61,
                "cluster": "c", "logmsg": null, "result": null
            }),
            "ganeti.event.cluster",
        ),
        (
            json!({
                "type": "eventd-heartbeat", "event_time": [1, 0], "operation": "OP_TAGS_SET",
                "status": "waiting", "jobId": 62, "cluster": "c", "logmsg": null, "result": null
            }),
            "eventd.heartbeat",
        ),
    ]
}

#[test]
fn every_type_is_read_and_written_unchanged() {
    for (value, key) in all() {
        let message = Message::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(message.routing_key().as_str(), key);
        let again: Value = serde_json::from_slice(&message.to_body()).unwrap();
        assert_eq!(again, value);
    }
}

#[test]
fn unknown_fields_are_tolerated() {
    for (mut value, _) in all() {
        let known = Message::parse(value.to_string().as_bytes()).unwrap();
        value["x_later"] = json!({"deep": [1]});
        let read = Message::parse(value.to_string().as_bytes()).unwrap();
        if !matches!(known, Message::Progress(_)) {
            assert_eq!(read, known);
        }
    }
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    for (field, wrong) in [
        ("event_time", json!("yesterday")),
        ("event_time", json!([1, 1_000_000])),
        ("event_time", json!([-1, 0])),
        ("instance", json!(7)),
        ("jobId", json!("7")),
        ("status", Value::Null),
    ] {
        let mut value = op();
        value[field] = wrong;
        let error = Message::parse(value.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("ganeti-op-status"), "{error}");
        let mut value = op();
        value.as_object_mut().unwrap().shift_remove(field);
        let error = Message::parse(value.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!("{{\"type\":\"image-info\",\"x\":{deep}}}");
    for body in ["", "{", "[]", "null", "{\"type\":7}", "{}", &deep, &nested] {
        assert!(Message::parse(body.as_bytes()).is_err());
    }
    let error = Message::parse(b"{\"type\":\"ganeti-x\"}").unwrap_err();
    assert!(error.to_string().contains("ganeti-x"), "{error}");
    let long = vec![b' '; BODY_LIMIT + 1];
    assert!(matches!(
        Message::parse(&long),
        Err(MessageError::TooLong(_))
    ));
}

#[test]
fn what_is_wrong_is_named_with_its_field_and_value() {
    let op = json!({"type": "ganeti-op-status", "event_time": [1, 0], "instance": "snf-1",
        "operation": "OP_INSTANCE_CREATE", "status": "success", "jobId": 7, "cluster": "c",
        "instance_nics": [{"mac": "aa:00:00:00:00:01"}]});
    let error = |path: &str, value: Value| {
        let mut wrong = op.clone();
        *wrong.pointer_mut(path).unwrap() = value;
        Message::parse(wrong.to_string().as_bytes())
            .unwrap_err()
            .to_string()
    };
    for (path, value, said) in [
        ("/type", json!(7), "not a message: type = 7: "),
        (
            "/jobId",
            json!("seven"),
            "ganeti-op-status message: jobId = \"seven\": ",
        ),
        ("/jobId", json!(-1), "jobId = -1: "),
        ("/instance", json!(null), "instance = null: "),
        ("/status", json!(["x"]), "status = [\"x\"]: "),
        ("/event_time", json!([1, "x"]), "event_time[1] = \"x\": "),
        (
            "/event_time",
            json!([1, 1_000_000]),
            "event_time = [1,1000000]: ",
        ),
        (
            "/instance_nics/0/mac",
            json!(5),
            "instance_nics[0].mac = 5: ",
        ),
        (
            "/instance_nics/0",
            json!({"mac": "x", "ip": {}}),
            "instance_nics[0].ip = {}: ",
        ),
    ] {
        let error = error(path, value);
        assert!(error.contains(said), "{said:?} is not in {error:?}");
    }
    // a missing field is named by serde; a value as long as a message is cut off
    let missing = error("/instance_nics/0", json!({}));
    assert!(missing.contains("missing field `mac`"), "{missing}");
    let long = error("/jobId", json!("x".repeat(10_000)));
    assert!(long.contains("jobId = \"xxx"), "{long}");
    assert!(long.contains("…") && long.chars().count() < 400, "{long}");
    let progress = json!({"type": "image-copy-progress", "event_time": [1, 0], "instance": 7});
    let error = Message::parse(progress.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("instance = 7: "), "{error}");
}

#[test]
fn progress_is_a_percentage_or_nothing() {
    let percent = |progress: Value| {
        let value = json!({"type": "image-copy-progress", "event_time": [1, 0],
            "instance": "snf-1", "progress": progress});
        match Message::parse(value.to_string().as_bytes()).unwrap() {
            Message::Progress(progress) => progress.percent(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(percent(json!(0)), Some(0));
    assert_eq!(percent(json!(99.99)), Some(99));
    assert_eq!(percent(json!(100)), Some(100));
    assert_eq!(percent(json!("42.5")), Some(42));
    for wrong in [
        json!(-0.5),
        json!(100.5),
        json!("NaN"),
        json!(null),
        json!(1e308),
    ] {
        assert_eq!(percent(wrong), None);
    }
}

#[test]
fn an_event_id_depends_on_every_part_and_on_nothing_else() {
    let id = EventId::of_job("c", 7, 0, "running", 3, "");
    assert_eq!(id, EventId::of_job("c", 7, 0, "running", 3, ""));
    for other in [
        EventId::of_job("d", 7, 0, "running", 3, ""),
        EventId::of_job("c", 8, 0, "running", 3, ""),
        EventId::of_job("c", 7, 1, "running", 3, ""),
        EventId::of_job("c", 7, 0, "success", 3, ""),
        EventId::of_job("c", 7, 0, "running", 4, ""),
        EventId::of_job("c", 7, 0, "running", 3, "snf-1"),
        EventId::of_job("c", 70, 0, "running", 3, ""),
    ] {
        assert_ne!(id, other);
    }
    assert_ne!(
        EventId::of_parts(&["ab", "c"]),
        EventId::of_parts(&["a", "bc"])
    );
    assert_eq!(EventId::parse(&id.to_string()), Some(id));
    for wrong in ["", "xyz", &"0".repeat(31), &"g".repeat(32), &"é".repeat(16)] {
        assert_eq!(EventId::parse(wrong), None);
    }
}

#[test]
fn a_routing_key_fits_amqp_whatever_the_name() {
    let key = RoutingKey::of(Topic::Network, &"é".repeat(300));
    assert!(key.as_str().len() <= 255, "{}", key.as_str().len());
    assert!(key.as_str().starts_with("ganeti.é"));
    assert!(key.as_str().ends_with(".event.network"));
    assert_eq!(
        RoutingKey::for_prefix(Topic::Op, "snf"),
        RoutingKey::of(Topic::Op, "snf-7")
    );
}
