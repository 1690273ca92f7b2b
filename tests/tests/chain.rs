//! The whole chain on a real Ganeti with a real guest.

use std::time::Duration;

use harness::chain::timeline::Timeline;
use harness::chain::{Chain, story};
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
