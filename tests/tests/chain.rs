//! The whole chain on a real Ganeti with a real guest.

use std::time::Duration;

use harness::chain::timeline::Timeline;
use harness::chain::{Chain, Program, story};
use harness::{process, python};
use serde_json::json;

/// The demo's own story: a person's first half hour with the cloud.
#[test]
fn a_server_lives_its_life() {
    let mut timeline = Timeline::default();
    let mut chain = Chain::start(&mut timeline).unwrap();
    if let Err(error) = story::tell(&chain, &mut timeline) {
        panic!("{error:#}\n{}", chain.logs());
    }
    chain.check().unwrap();
    println!("{}", timeline.table());
}

/// What people drive a cloud with, unmodified, from PyPI, drives this one down to the guest.
#[test]
fn a_client_of_others_drives_a_real_guest() {
    let clients = harness::source_root().join("central/tests/clients");
    let python = match python::venv("venv", &clients.join("requirements.txt")) {
        Ok(python) => python,
        Err(error) => {
            let test = "a_client_of_others_drives_a_real_guest";
            return harness::skip(test, &format!("{error:#}"));
        }
    };
    let mut chain = Chain::start(&mut Timeline::default()).unwrap();
    let mut client = chain.client(&python, &[&clients.join("real_ganeti_script.py")]);
    client.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = process::run(&mut client, Duration::from_secs(800)).unwrap();
    let failed = output.stdout.contains("FAILED") || !output.status.success();
    assert!(
        !failed,
        "{}{}\n{}",
        output.stdout,
        output.stderr,
        chain.logs()
    );
    println!("{}", output.stdout);
    chain.check().unwrap();
}

/// Nothing that happens while the broker is away is lost, and everybody finds it again.
#[test]
fn the_chain_recovers_when_the_broker_returns() {
    let mut chain = Chain::start(&mut Timeline::default()).unwrap();
    let api = story::log_in(&chain).unwrap();
    let server = story::create_and_wait(&chain, &api, "outlives-the-broker").unwrap();

    chain.kill_broker();
    api.action(&server.id, &json!({"os-stop": null})).unwrap();
    // the job ends in Ganeti while nobody can be told
    harness::wait::until_true("the guest's end", Duration::from_secs(120), || {
        chain.console(&server.id).is_err()
    })
    .unwrap();
    chain.check().unwrap();

    chain.restart_broker().unwrap();
    if let Err(error) = story::wait_for_status(&api, &server.id, "SHUTOFF") {
        panic!("{error:#}\n{}", chain.logs());
    }
    story::agrees_with_ganeti(&chain, &api, &server).unwrap();
    chain.check().unwrap();
}

/// An operator may start things in any order: what is away is waited for, and said once.
#[test]
fn the_programs_start_while_broker_and_rapi_are_away() {
    let mut chain = Chain::start(&mut Timeline::default()).unwrap();
    chain.kill_broker();
    rapi(&chain, "stop");
    let marks = [Program::Eventd, Program::Central].map(|program| {
        chain.stop(program);
        (program, chain.log(program).len())
    });
    for (program, _) in marks {
        chain.restart(program).unwrap();
    }
    chain.wait_for_central().unwrap();

    // reads are answered; a create is refused clearly or waits, and nothing ends
    let api = story::log_in(&chain).unwrap();
    api.expect("GET", "/compute/v2.0/servers/detail", None, 200)
        .unwrap();
    let flavor = api
        .id_by_name("/compute/v2.0/flavors", "flavors", "tiny")
        .unwrap();
    let image = api
        .id_by_name("/compute/v2.0/images", "images", "busybox")
        .unwrap();
    let body = json!({"server": {"name": "early", "flavorRef": flavor, "imageRef": image}});
    let (status, answer) = api
        .request("POST", "/compute/v2.0/servers", Some(&body))
        .unwrap();
    assert!(matches!(status, 202 | 503), "{status}: {answer}");
    let said = |program, before| -> Vec<String> {
        let log = chain.log(program);
        let since = log.get(before..).unwrap_or_default();
        let outages = since
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("amqp://"));
        outages.map(str::to_owned).collect()
    };
    for (program, before) in marks {
        let what = format!("{program:?} to say that the broker is away");
        harness::wait::until_true(&what, harness::wait::USUAL, || {
            !said(program, before).is_empty()
        })
        .unwrap();
    }
    std::thread::sleep(Duration::from_secs(5));
    for (program, before) in marks {
        let said = said(program, before);
        assert_eq!(said.len(), 1, "{program:?} said: {said:#?}");
    }
    chain.check().unwrap();

    rapi(&chain, "start");
    chain.restart_broker().unwrap();
    if let Err(error) = story::create_and_wait(&chain, &api, "late") {
        panic!("{error:#}\n{}", chain.logs());
    }
}

/// What `gnt-instance` does behind our back is in the API: as eventd tells it, and while no
/// broker is there as the reconciler sees it.
#[test]
fn the_api_follows_what_is_done_behind_its_back() {
    let mut chain = Chain::start(&mut Timeline::default()).unwrap();
    chain.reconcile_often().unwrap();
    let api = story::log_in(&chain).unwrap();
    let server = story::create_and_wait(&chain, &api, "watched").unwrap();
    let instance = format!("snf-{}", server.id);
    // The one that was stopped led the reconcilers: its lease must end first.
    let patience = Duration::from_secs(180);
    let status = harness::wait::until_ok("all to be well", patience, || {
        chain.snf_central(&["status", "--wait", "60"])
    });
    let status = status.unwrap();
    assert!(status.contains("eventd answers"), "{status}");

    for (address, broker) in [("10.66.1.91", true), ("10.66.1.92", false)] {
        if !broker {
            chain.kill_broker();
        }
        let gnt = |command: &str| {
            let command = format!("gnt-instance {command} {instance}");
            chain.node().sh(&command).unwrap();
        };
        let wait = |what: &str, is_so: &dyn Fn(&serde_json::Value) -> bool| {
            let seen = harness::wait::until_true(what, Duration::from_secs(180), || {
                api.server(&server.id).is_ok_and(|server| is_so(&server))
            });
            if let Err(error) = seen {
                panic!("with the broker {broker}: {error:#}\n{}", chain.logs());
            }
        };
        gnt("shutdown --timeout 1");
        wait("SHUTOFF", &|server| server["status"] == "SHUTOFF");
        gnt(&format!("modify --net 0:modify,ip={address}"));
        wait("the other address", &|server| {
            harness::chain::api::addresses(server, 4) == [address]
        });
        gnt("startup");
        wait("ACTIVE", &|server| server["status"] == "ACTIVE");
        story::agrees_with_ganeti(&chain, &api, &server).unwrap();
    }
    // by now only the reconciler can know
    let remove = format!("gnt-instance remove -f --shutdown-timeout 1 {instance}");
    chain.node().sh(&remove).unwrap();
    if let Err(error) = story::wait_for_status(&api, &server.id, "DELETED") {
        panic!("{error:#}\n{}", chain.logs());
    }
    let shown = chain.snf_central(&["reconcile", "--dry-run"]).unwrap();
    assert!(shown.contains("nothing differs"), "{shown}");
    let status = chain.snf_central(&["status"]).unwrap_err().to_string();
    assert!(status.contains("no broker answers"), "{status}");

    chain.restart_broker().unwrap();
    let deadline = Duration::from_secs(180);
    harness::wait::until_ok("all to be well again", deadline, || {
        chain.snf_central(&["status", "--wait", "60"])
    })
    .unwrap();
    let (code, answer) = api.request("GET", "/compute/v2.0/servers", None).unwrap();
    assert_eq!((code, &answer), (200, &json!({"servers": []})));
    chain.check().unwrap();
}

#[allow(clippy::unwrap_used, reason = "a test's own function")]
fn rapi(chain: &Chain, verb: &str) {
    let command = format!("/usr/lib/ganeti/daemon-util {verb} ganeti-rapi");
    chain.node().sh(&command).unwrap();
}
