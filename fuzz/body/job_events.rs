//! From two versions of a job file, separated by a NUL, to messages.

use std::collections::HashSet;

use agents::ganeti::job::Job;
use agents::message::Message;
use eventd::job::{Context, Told, events};

pub fn run(data: &[u8]) {
    let mut versions = data.split(|byte| *byte == 0);
    let mut told = None;
    for version in versions.by_ref().take(2) {
        let Ok(job) = Job::parse(7, version) else {
            continue;
        };
        let mut context = Context {
            cluster: "cluster.gnt.lab",
            origin: "node1.gnt.lab/snf-ganeti-eventd",
            parts: &mut |_| None,
        };
        let mut ids = HashSet::new();
        for entry in events(&job, told.as_ref(), &mut context) {
            assert!(ids.insert(entry.id), "{:?} twice", entry.id);
            assert!(entry.key.as_str().len() <= 255);
            let message = Message::parse(entry.body_bytes()).expect("a message of ours");
            assert_eq!(message.routing_key(), entry.key);
        }
        let all = Told::all_of(&job);
        let again = events(&job, Some(&all), &mut context);
        assert!(again.is_empty(), "told again: {again:?}");
        told = Some(all);
    }
}
