//! What an operator sees and does from a shell: `status`, `queue`, `reconcile`, as programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::json;
use support::broker::{Agents, isolated, story};
use support::rapi::FakeRapi;
use support::{Central, until};

/// A configuration file for the program, of a central that runs here.
fn configuration(central: &Central, broker: &str) -> PathBuf {
    written(central, &format!("[broker]\nurls = ['{broker}']\n"))
}

fn written(central: &Central, more: &str) -> PathBuf {
    let path = central.folder.path().join("central.toml");
    let url = &central.config.database_url;
    let text = format!("log = 'warn'\n[database]\nurl = '{url}'\n{more}");
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs the program; its status and what it printed.
async fn snf_central(configuration: &PathBuf, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snf-central"));
    command.arg("--config").arg(configuration).args(words);
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text + &errors)
}

#[test]
fn dead_letters_are_looked_at_put_back_and_dropped() {
    isolated(async |site| {
        let broker = site.broker();
        let central = site.central().await;
        let file = configuration(&central, &broker.uri());
        let agents = Agents::connect(&broker).await;
        let id = central.create("web", &["bridged"]).await;
        let instance = format!("snf-{id}");
        let job = central.rapi.last().job.unwrap();
        until("the dispatcher to declare its queues", async || {
            let listed = broker.ctl("list_queues name").unwrap().stdout;
            listed.contains("central.snf.heartbeat")
        })
        .await;
        assert_eq!(
            snf_central(&file, &["queue", "list"]).await,
            (0, "no dead letters\n".to_owned())
        );
        // One that can never be applied, and one from a cluster that is not known yet.
        agents.send_raw("ganeti.snf.event.op", b"not json").await;
        let network = json!({"type": "ganeti-network-status", "event_time": [1, 0],
            "network": "snf-net-1", "operation": "OP_NETWORK_CONNECT", "status": "success",
            "jobId": 5, "cluster": "elsewhere.example.org", "logmsg": null, "result": null,
            "job_fields": {}});
        agents.send("network", &network).await;
        let letters = async || {
            let (code, text) = snf_central(&file, &["queue", "list"]).await;
            assert_eq!(code, 0, "{text}");
            text
        };
        until("two dead letters", async || {
            letters().await.lines().count() == 3
        })
        .await;
        let listed = letters().await;
        assert!(listed.starts_with("ID "), "{listed}");
        let id_of = |word: &str| {
            let line = listed.lines().find(|line| line.contains(word)).unwrap();
            line.split(' ').next().unwrap().to_owned()
        };
        let (text, elsewhere) = (id_of("central.snf.op"), id_of("central.snf.network"));
        let (code, shown) = snf_central(&file, &["queue", "show", &elsewhere]).await;
        assert_eq!(code, 0);
        for part in [
            "elsewhere.example.org",
            "no backend of this name",
            "ganeti.snf.event.network",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        // Put back, it comes again, with the same id; looking often does no harm.
        for _ in 0..3 {
            let (code, text) = snf_central(&file, &["queue", "retry", &elsewhere]).await;
            assert_eq!(
                (code, text),
                (0, format!("{elsewhere}: back in central.snf.network\n"))
            );
            until("it to be here again", async || {
                letters().await.contains(&elsewhere)
            })
            .await;
        }
        // Once the cluster is known, it is applied: the first measurement says so.
        let (code, _) = snf_central(&file, &["queue", "drop", &text]).await;
        assert_eq!(code, 0);
        assert!(!letters().await.contains(&text));
        let (code, text) = snf_central(&file, &["queue", "drop", "0123456789ab"]).await;
        assert_eq!(code, 1, "{text}");
        let (code, _) = snf_central(&file, &["queue", "drop"]).await;
        assert_eq!(code, 2);
        let (code, _) = snf_central(&file, &["queue", "drop", "--all"]).await;
        assert_eq!(code, 0);
        assert_eq!(letters().await, "no dead letters\n");

        // The rest has gone on.
        for message in story("OP_INSTANCE_CREATE", &instance, job, "10.66.1.2") {
            agents.send("op", &message).await;
        }
        until("ACTIVE", async || {
            central.server(&id).await["status"] == "ACTIVE"
        })
        .await;
    });
}

#[test]
fn the_status_says_what_is_not_well() {
    isolated(async |site| {
        let mut broker = site.broker();
        let central = site.central().await;
        let file = configuration(&central, &broker.uri());
        let agents = Agents::connect(&broker).await;
        until("the dispatcher to consume", async || {
            let listed = broker.ctl("list_queues name consumers").unwrap().stdout;
            listed.contains("central.snf.heartbeat\t1")
        })
        .await;
        // Nobody answers the question.
        let (code, text) = snf_central(&file, &["status", "--wait", "2"]).await;
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("eventd: no answer to job"), "{text}");
        assert!(text.contains("RAPI of Ganeti 3.0.2 answers"), "{text}");

        // Now somebody does, as eventd does when it sees the job in the queue.
        let rapi = central.rapi.clone();
        let answers = tokio::spawn(async move {
            let mut answered = rapi.submissions().len();
            loop {
                for call in rapi.submissions().into_iter().skip(answered) {
                    answered += 1;
                    assert!(
                        call.query.contains("snf%3Aeventd%3Aheartbeat%3A"),
                        "{call:?}"
                    );
                    assert!(call.query.contains("dry-run=1"), "{call:?}");
                    let answer = json!({"type": "eventd-heartbeat", "event_time": [21, 0],
                        "operation": "OP_TAGS_SET", "status": "waiting", "jobId": call.job,
                        "cluster": "cluster.gnt.lab", "logmsg": null, "result": null});
                    agents
                        .send_raw("eventd.heartbeat", answer.to_string().as_bytes())
                        .await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        until("all to be well", async || {
            let (code, text) = snf_central(&file, &["status", "--wait", "30"]).await;
            println!("{text}");
            code == 0
        })
        .await;
        let (code, text) = snf_central(&file, &["status", "--wait", "30"]).await;
        assert_eq!(code, 0, "{text}");
        for part in [
            "queue central.snf.op",
            "no dead letters",
            "eventd answers in",
            "no event has ever come",
            "0 servers, 0 repairs, 0 differences left",
            "0 wait to be asked",
            &format!("{}:", std::process::id()),
            "reconciles",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        answers.abort();
        broker.kill();
        let (code, text) = snf_central(&file, &["status"]).await;
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("no broker answers"), "{text}");
        assert!(!text.contains("guest:guest"), "{text}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_differs_and_changes_nothing() {
    let never = "[reconcile]\ninterval_seconds = 100000\n";
    let central = Central::with(FakeRapi::start().await, never).await;
    central.rapi.succeed();
    let file = written(&central, "");
    let id = central.create("web", &["bridged"]).await;
    until("ACTIVE", async || {
        let server = central.server(&id).await;
        server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
    })
    .await;
    let dry = ["reconcile", "--dry-run"];
    assert_eq!(
        snf_central(&file, &dry).await,
        (0, "nothing differs\n".to_owned())
    );
    let instance = format!("snf-{id}");
    central.rapi.change(&instance, "oper_state", json!(false));
    central.rapi.smuggle("snf-4711");
    for _ in 0..2 {
        let (code, text) = snf_central(&file, &dry).await;
        assert_eq!(code, 0, "{text}");
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).collect())
            .map(|cells: Vec<&str>| cells.into_iter().filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(
            lines[0],
            ["BACKEND", "OBJECT", "WHAT", "DATABASE", "CLUSTER"]
        );
        let server = format!("server {id}");
        let stopped = ["cluster", &server, "state", "STARTED", "STOPPED"];
        let line = lines
            .iter()
            .find(|line| line.starts_with(&stopped))
            .expect(&text);
        assert_eq!(line[5], "would be repaired");
        let orphan = lines
            .iter()
            .find(|line| line.contains(&"server 4711"))
            .expect(&text);
        assert_eq!(orphan[2], "orphan");
        assert_eq!(*orphan.last().unwrap(), "for a person to look at");
        assert_eq!(lines.len(), 3, "{text}");
    }
    assert_eq!(central.server(&id).await["status"], "ACTIVE");
    let instances = [instance, "snf-4711".to_owned()];
    assert_eq!(central.rapi.instances(), instances);
}
