//! What no captured job shows: several opcodes, several instances, odd input.

use agents::ganeti::config_data::ConfigData;
use serde_json::json;

use super::*;

const CONFIG: &[u8] = include_bytes!("../../../agents/testdata/config.data");

fn job(ops: Value) -> Job<'static> {
    let file = json!({"id": 7, "ops": ops, "received_timestamp": [10, 1],
        "start_timestamp": [20, 2], "end_timestamp": null});
    Job::parse(7, file.to_string().leak().as_bytes()).unwrap()
}

fn op(status: &str, input: Value) -> Value {
    json!({"input": input, "status": status, "result": null, "log": [],
        "start_timestamp": [21, 0], "exec_timestamp": [22, 0], "end_timestamp": [23, 0]})
}

fn told(job: &Job<'_>, told: Option<&Told>) -> Vec<(Entry, Value)> {
    let config = ConfigData::parse(CONFIG).unwrap();
    let mut context = Context {
        cluster: "c",
        origin: "o",
        parts: &mut |name| config.instance(name),
    };
    events(job, told, &mut context)
        .into_iter()
        .map(|entry| {
            let body = serde_json::from_str(entry.body.get()).unwrap();
            (entry, body)
        })
        .collect()
}

#[test]
fn of_several_opcodes_only_those_that_changed_are_told() {
    let shutdown = |status, name: &str| {
        op(
            status,
            json!({"OP_ID": "OP_INSTANCE_SHUTDOWN", "instance_name": name}),
        )
    };
    let first = job(json!([
        shutdown("queued", "a-1"),
        shutdown("queued", "a-2")
    ]));
    let all = told(&first, None);
    assert_eq!(all.len(), 2);
    assert_ne!(all[0].0.id, all[1].0.id);
    let mark = Told::all_of(&first);
    assert!(told(&first, Some(&mark)).is_empty());

    let second = job(json!([
        shutdown("success", "a-1"),
        shutdown("waiting", "a-2")
    ]));
    let all = told(&second, Some(&mark));
    let said: Vec<_> = all
        .iter()
        .map(|(entry, body)| (entry.class, &body["status"]))
        .collect();
    assert_eq!(
        said,
        [
            (Class::Final, &json!("success")),
            (Class::Status, &json!("waiting"))
        ]
    );
    assert!(!second.is_final());

    let mark = Told::all_of(&second);
    let third = job(json!([
        shutdown("success", "a-1"),
        shutdown("error", "a-2")
    ]));
    let all = told(&third, Some(&mark));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1["instance"], "a-2");
    assert!(third.is_final());
}

#[test]
fn an_opcode_on_several_instances_gives_each_a_message() {
    let query = |result: Value| {
        let mut op = op(
            "success",
            json!({"OP_ID": "OP_INSTANCE_QUERY_DATA", "instances": ["a-1", "a-2", "", 7]}),
        );
        op["result"] = result;
        job(json!([op]))
    };
    let small = json!({"a-1": 1, "a-2": 2});
    let all = told(&query(small.clone()), None);
    let names: Vec<_> = all.iter().map(|(_, body)| &body["instance"]).collect();
    assert_eq!(names, [&json!("a-1"), &json!("a-2")]);
    assert!(all.iter().all(|(_, body)| body["result"] == small));
    assert_ne!(all[0].0.id, all[1].0.id);
    // a large result is not sent to each of them
    let large = json!({"a-1": "x".repeat(20_000), "a-3": 1});
    let all = told(&query(large.clone()), None);
    assert_eq!(all[0].1["result"], large["a-1"]);
    assert_eq!(all[1].1["result"], Value::Null);
    let list = json!(["x".repeat(20_000)]);
    assert_eq!(told(&query(list), None)[0].1["result"], Value::Null);

    let multi = job(json!([op(
        "queued",
        json!({"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": [
            {"OP_ID": "OP_INSTANCE_CREATE", "instance_name": "a-1", "nics": [{"ip": "192.0.2.1"}]},
            {"instance_name": "a-2"}]})
    )]));
    let all = told(&multi, None);
    assert_eq!(all.len(), 2);
    // The creates are jobs of their own, which tell of NICs and tags.
    for (_, body) in &all {
        assert_eq!(body["job_fields"], json!({}));
        assert_eq!(body["tags"], json!([]));
    }
}

#[test]
fn what_the_instance_is_made_of_is_told_after_a_canceled_modify_too() {
    let modify = |opcode: &str, status: &str| {
        let job = job(json!([op(
            status,
            json!({"OP_ID": opcode, "instance_name": "snf-1"})
        )]));
        let [(_, body)] = &told(&job, None)[..] else {
            panic!()
        };
        (
            body.get("instance_nics").is_some(),
            body.get("instance_disks").is_some(),
            body.get("instance_hvparams").is_some(),
        )
    };
    for status in ["success", "error", "canceled"] {
        for opcode in ["OP_INSTANCE_SET_PARAMS", "OP_INSTANCE_GROW_DISK"] {
            assert_eq!(
                modify(opcode, status),
                (true, true, true),
                "{opcode} {status}"
            );
        }
    }
    assert_eq!(
        modify("OP_INSTANCE_SET_PARAMS", "running"),
        (false, false, false)
    );
    assert_eq!(modify("OP_INSTANCE_STARTUP", "success"), (true, true, true));
    assert_eq!(
        modify("OP_INSTANCE_STARTUP", "error"),
        (false, false, false)
    );
    assert_eq!(
        modify("OP_INSTANCE_REBOOT", "success"),
        (false, false, false)
    );
}

#[test]
fn what_a_later_ganeti_has_passes_through() {
    let later = job(json!([op(
        "suspended",
        json!({"OP_ID": "OP_INSTANCE_TELEPORT", "instance_name": "a-1"})
    )]));
    let [(entry, body)] = &told(&later, None)[..] else {
        panic!()
    };
    assert_eq!(entry.class, Class::Status);
    assert_eq!(body["operation"], "OP_INSTANCE_TELEPORT");
    assert_eq!(body["status"], "suspended");
    for opcode in [
        "OP_NODE_ADD",
        "OP_INSTANCE",
        "INSTANCE_X",
        "",
        "OP_CLUSTER_VERIFY",
    ] {
        let job = job(json!([op(
            "success",
            json!({"OP_ID": opcode, "instance_name": "a-1"})
        )]));
        assert!(told(&job, None).is_empty(), "{opcode}");
    }
    let nameless = job(json!([
        op("success", json!({"OP_ID": "OP_INSTANCE_SHUTDOWN"})),
        op(
            "success",
            json!({"OP_ID": "OP_INSTANCE_SHUTDOWN", "instance_name": ["a-1"]})
        ),
        op("success", json!({"OP_ID": "OP_NETWORK_ADD"})),
        op(
            "success",
            json!({"OP_ID": "OP_TAGS_SET", "kind": "node", "name": "a-1"})
        ),
    ]));
    assert!(told(&nameless, None).is_empty());
}

#[test]
fn a_dispatchers_question_is_answered_once() {
    let question = |status: &str, tag: &str, dry_run: bool| {
        job(json!([op(
            status,
            json!({"OP_ID": "OP_TAGS_SET", "kind": "cluster", "dry_run": dry_run, "tags": [tag]})
        )]))
    };
    let tag = "snf:eventd:heartbeat:host:77";
    let queued = question("queued", tag, true);
    assert!(told(&queued, None).is_empty());
    let mark = Told::all_of(&queued);
    let waiting = question("waiting", tag, true);
    let [(entry, body)] = &told(&waiting, Some(&mark))[..] else {
        panic!()
    };
    assert_eq!(entry.key.as_str(), "eventd.heartbeat");
    assert_eq!(
        body,
        &json!({"type": "eventd-heartbeat", "event_time": [21, 0], "operation": "OP_TAGS_SET",
            "status": "waiting", "jobId": 7, "cluster": "c", "logmsg": null, "result": null})
    );
    let mark = Told::all_of(&waiting);
    assert!(told(&question("success", tag, true), Some(&mark)).is_empty());
    // quicker than we looked
    assert_eq!(told(&question("success", tag, true), None).len(), 1);
    assert!(told(&question("waiting", tag, false), None).is_empty());
    assert!(told(&question("waiting", "synnefo:heartbeat", true), None).is_empty());
}

#[test]
fn a_log_line_is_progress_and_a_status_is_not() {
    let create = |status: &str, lines: &[&str]| {
        let log: Vec<_> = lines
            .iter()
            .map(|line| json!([1, [1, 1], "message", line]))
            .collect();
        let mut op = op(
            status,
            json!({"OP_ID": "OP_INSTANCE_CREATE", "instance_name": "a-1"}),
        );
        op["log"] = json!(log);
        job(json!([op]))
    };
    let running = create("running", &[]);
    assert_eq!(told(&running, None)[0].0.class, Class::Status);
    let mark = Told::all_of(&running);
    let logged = create("running", &["one", "two"]);
    let [(entry, body)] = &told(&logged, Some(&mark))[..] else {
        panic!()
    };
    assert_eq!(entry.class, Class::Progress);
    assert_eq!(body["logmsg"], "two");
    let failed = create("error", &["one", "two"]);
    let [(entry, body)] = &told(&failed, Some(&Told::all_of(&logged)))[..] else {
        panic!()
    };
    assert_eq!(entry.class, Class::Final);
    assert_eq!(
        body["job_fields"]["instance_name"], "a-1",
        "the whole input of a failed create"
    );
}

#[test]
fn a_message_that_no_broker_would_take_goes_without_what_makes_it_long() {
    let input = |more: Value| {
        let mut input = json!({"OP_ID": "OP_INSTANCE_CREATE", "instance_name": "a-1"});
        input
            .as_object_mut()
            .unwrap()
            .insert("osparams".into(), more);
        input
    };
    let long = json!("x".repeat(2 * BODY_LIMIT));
    let mut with_result = op("error", input(json!({"img_id": "y"})));
    with_result["result"] = long.clone();
    let all = told(&job(json!([with_result])), None);
    assert_eq!(all.len(), 1);
    let (entry, body) = &all[0];
    assert!(entry.body_bytes().len() < BODY_LIMIT);
    assert_eq!(body["status"], "error");
    assert_eq!(body["result"], Value::Null);
    assert_eq!(
        body["job_fields"]["osparams"]["img_id"], "y",
        "what can be kept is"
    );

    let all = told(&job(json!([op("error", input(long))])), None);
    let (entry, body) = &all[0];
    assert!(entry.body_bytes().len() < BODY_LIMIT);
    assert_eq!(body["instance"], "a-1");
    assert_eq!(body["status"], "error");
}

#[test]
fn only_a_create_and_a_modify_tell_of_their_input() {
    let given = json!({"nics": [["add", -1, {}]], "disks": [], "hvparams": {"kvm_flag": "x"},
        "beparams": {"vcpus": 4, "maxmem": 4096}, "tags": ["a", "cyclades:user:b"]});
    let all_told = |job: &Job<'_>| told(job, None);
    let told = |opcode: &str, status: &str| {
        let mut input = given.clone();
        input["OP_ID"] = json!(opcode);
        input["instance_name"] = json!("snf-1");
        let job = job(json!([op(status, input)]));
        let [(_, body)] = &all_told(&job)[..] else {
            panic!()
        };
        (body["job_fields"].clone(), body["tags"].clone())
    };
    let mut fields = given.clone();
    fields.as_object_mut().unwrap().shift_remove("tags");
    for status in [
        "queued",
        "waiting",
        "running",
        "canceling",
        "success",
        "error",
        "canceled",
    ] {
        for opcode in [
            "OP_INSTANCE_STARTUP",
            "OP_INSTANCE_SHUTDOWN",
            "OP_INSTANCE_REBOOT",
            "OP_INSTANCE_REMOVE",
            "OP_INSTANCE_REINSTALL",
            "OP_INSTANCE_RENAME",
            "OP_INSTANCE_MIGRATE",
            "OP_INSTANCE_FAILOVER",
            "OP_INSTANCE_MOVE",
            "OP_INSTANCE_RECREATE_DISKS",
            "OP_INSTANCE_GROW_DISK",
            "OP_INSTANCE_CONSOLE",
            "OP_INSTANCE_SNAPSHOT",
            "OP_INSTANCE_LATER",
        ] {
            let expected = (json!({}), json!([]));
            assert_eq!(told(opcode, status), expected, "{opcode} {status}");
        }
        let expected = (fields.clone(), json!([]));
        assert_eq!(told("OP_INSTANCE_SET_PARAMS", status), expected);
        let (job_fields, tags) = told("OP_INSTANCE_CREATE", status);
        assert_eq!(tags, given["tags"], "{status}");
        if status == "error" {
            assert_eq!(job_fields["tags"], given["tags"]);
            assert_eq!(job_fields["instance_name"], "snf-1");
        } else {
            assert_eq!(job_fields, fields, "{status}");
        }
    }
    // A create of an old Ganeti has no tags, or something else in their place.
    for tags in [json!(null), json!("x"), json!({}), json!([7, "y"])] {
        let input = json!({"OP_ID": "OP_INSTANCE_CREATE", "instance_name": "a-1", "tags": tags});
        let (_, body) = &all_told(&job(json!([op("queued", input)])))[0];
        let expected = if tags.is_array() {
            json!(["y"])
        } else {
            json!([])
        };
        assert_eq!(body["tags"], expected);
    }
}

#[test]
fn a_tag_operation_tells_its_end_and_whether_it_was_a_dry_run() {
    for opcode in ["OP_TAGS_SET", "OP_TAGS_DEL"] {
        for (given, expected) in [
            (Some(json!(true)), json!(true)),
            (Some(json!(false)), json!(false)),
            (None, json!(null)),
        ] {
            let mut input = json!({"OP_ID": opcode, "kind": "instance", "name": "snf-1",
                "tags": ["cyclades:user:x"]});
            if let Some(dry_run) = &given {
                input["dry_run"] = dry_run.clone();
            }
            for status in ["queued", "waiting", "running", "canceling", "canceled"] {
                let job = job(json!([op(status, input.clone())]));
                assert!(told(&job, None).is_empty(), "{opcode} {status}");
            }
            for status in ["success", "error"] {
                let job = job(json!([op(status, input.clone())]));
                let [(entry, body)] = &told(&job, None)[..] else {
                    panic!()
                };
                assert_eq!(body["job_fields"], json!({"dry_run": expected}));
                assert_eq!(body["tags"], json!(["cyclades:user:x"]));
                assert_eq!(entry.dry_run, given == Some(json!(true)));
            }
        }
    }
}

#[test]
fn a_dry_run_of_any_operation_is_marked_outside_the_body() {
    for (opcode, name) in [
        ("OP_INSTANCE_SHUTDOWN", "instance_name"),
        ("OP_INSTANCE_CREATE", "instance_name"),
        ("OP_INSTANCE_REMOVE", "instance_name"),
        ("OP_NETWORK_REMOVE", "network_name"),
    ] {
        for dry_run in [true, false] {
            let input = json!({"OP_ID": opcode, name: "snf-1", "dry_run": dry_run});
            let all = told(&job(json!([op("success", input)])), None);
            assert_eq!(all[0].0.dry_run, dry_run, "{opcode}");
            assert_eq!(all[0].1.get("dry_run"), None, "{opcode}");
        }
    }
}
