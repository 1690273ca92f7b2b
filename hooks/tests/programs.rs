//! The two programs as Ganeti and an OS definition run them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)] // a test

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agents::outbox::{Entry, Outbox};
use serde_json::Value;
use tempfile::TempDir;

struct Rig {
    scratch: TempDir,
}

impl Rig {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let outbox = scratch.path().join("outbox");
        let config = format!(
            "outbox_dir = \"{}\"\nnode_name = \"node1.gnt.lab\"\n",
            outbox.display()
        );
        fs::write(scratch.path().join("hooks.toml"), config).unwrap();
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn outbox(&self) -> Outbox {
        Outbox::existing(&self.path("outbox"))
    }

    fn entries(&self) -> Vec<Entry> {
        let outbox = self.outbox();
        let names = outbox.list().unwrap();
        names
            .iter()
            .flat_map(|name| outbox.read(name).unwrap())
            .collect()
    }

    fn monitor(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snf-progress-monitor"));
        command
            .arg("--config")
            .arg(self.path("hooks.toml"))
            .arg("snf-7")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Runs the hook as Ganeti does: its own path as the only argument, an environment of nothing
/// but what Ganeti sets, no input.
fn run_hook(config: &Path, argv0: &str, environment: &HashMap<String, String>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snf-ganeti-hook"))
        .arg0(argv0)
        .arg("--config")
        .arg(config)
        .env_clear()
        .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn captured() -> HashMap<String, String> {
    serde_json::from_str(include_str!(
        "../../agents/testdata/hook-instance-add-post.json"
    ))
    .unwrap()
}

#[test]
fn a_hook_that_ganeti_runs_leaves_its_message() {
    let rig = Rig::new();
    let argv0 = "/etc/ganeti/hooks/instance-add-post.d/snf-ganeti-hook";
    let output = run_hook(&rig.path("hooks.toml"), argv0, &captured());
    assert!(output.status.success());
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    let [entry] = &rig.entries()[..] else {
        panic!()
    };
    let body: Value = serde_json::from_str(entry.body.get()).unwrap();
    assert_eq!(body["nics"][0]["ipv6"], "fd66:1::a800:ff:fee1:87fc");
}

#[test]
fn a_hook_without_its_environment_says_so_in_one_line() {
    let rig = Rig::new();
    let output = run_hook(&rig.path("hooks.toml"), "x", &HashMap::new());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("GANETI_HOOKS_VERSION"), "{said}");
    assert!(!rig.path("outbox").exists());
}

#[test]
fn the_node_that_an_instance_has_left_stops_answering_for_it() {
    let rig = Rig::new();
    let netns = harness::netns::Netns::new().unwrap();
    netns
        .sh("ip link add up0 type bridge
             ip neigh add proxy 10.66.2.10 dev up0
             ip neigh add proxy 10.66.2.11 dev up0
             ip neigh add proxy fd66:2::a800:ff:fe7e:d70d dev up0
             ip neigh add proxy fd66:2::1 dev up0")
        .unwrap();
    let mut environment: HashMap<String, String> = serde_json::from_str(include_str!(
        "../../agents/testdata/hook-instance-modify-post.json"
    ))
    .unwrap();
    environment.insert(
        "GANETI_HOOKS_PATH".to_owned(),
        "instance-migrate".to_owned(),
    );
    environment.insert("GANETI_OLD_PRIMARY".to_owned(), "node1.gnt.lab".to_owned());
    let proxies = || {
        let all =
            netns.ip("-4 neigh show proxy").unwrap() + &netns.ip("-6 neigh show proxy").unwrap();
        all.lines()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut run = |new_primary: &str| {
        environment.insert("GANETI_NEW_PRIMARY".to_owned(), new_primary.to_owned());
        let mut command = netns.command(env!("CARGO_BIN_EXE_snf-ganeti-hook"));
        command
            .arg("--config")
            .arg(rig.path("hooks.toml"))
            .env_clear()
            .envs(&environment);
        harness::process::check(&mut command, harness::wait::USUAL).unwrap();
    };
    run("node1.gnt.lab");
    assert_eq!(proxies().len(), 4);
    run("node2.gnt.lab");
    let mut left = proxies();
    left.sort();
    assert_eq!(left, ["10.66.2.11", "fd66:2::1"]);
    assert!(!rig.path("outbox").exists(), "a migration changes no NIC");
}

#[test]
fn a_stream_split_anywhere_becomes_messages_and_the_rest_is_passed_on() {
    let rig = Rig::new();
    let mut child = rig.monitor().spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let stream = concat!(
        r#"{"type": "image-info", "messages": ["bas"#,
        "\u{e9}",
        r#""], "instance": "snf-99"} garbage"#,
        "\n",
        r#"{"type": "other"}{"type": "image-copy-progress", "position": 5, "total": 10, "progress": 50}"#,
        r#"{"type": "image-error", "messages": ["no }"]}"#,
        r#"{"type": "image-"#
    );
    for byte in stream.as_bytes() {
        input.write_all(&[*byte]).unwrap();
        input.flush().unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "garbage\n{\"type\": \"other\"}\n{\"type\": \"image-\n"
    );
    let bodies: Vec<Value> = rig
        .entries()
        .iter()
        .map(|entry| serde_json::from_str(entry.body.get()).unwrap())
        .collect();
    let kinds: Vec<_> = bodies
        .iter()
        .map(|body| body["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["image-info", "image-copy-progress", "image-error"]);
    assert!(bodies.iter().all(|body| body["instance"] == "snf-7"));
    assert_eq!(bodies[1]["progress"], 50);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now - bodies[0]["event_time"][0].as_u64().unwrap() < 60);
}

#[test]
fn a_flood_becomes_a_trickle_with_the_last_and_only_the_newest_waits() {
    let rig = Rig::new();
    let mut child = rig.monitor().spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let outbox = rig.outbox();
    let start = Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    let mut number = 0;
    while start.elapsed() < Duration::from_millis(1500) {
        for _ in 0..100 {
            let line = format!(
                "{{\"type\":\"image-copy-progress\",\"progress\":{}}}",
                number % 100
            );
            input.write_all(line.as_bytes()).unwrap();
            number += 1;
        }
        let names = outbox.list().unwrap_or_default();
        assert!(
            names.len() <= 2,
            "one, or two while one replaces the other: {names:?}"
        );
        seen.extend(names);
        thread::sleep(Duration::from_millis(3));
    }
    write!(
        input,
        "{{\"type\":\"image-copy-progress\",\"progress\":100}}"
    )
    .unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let most = start.elapsed().as_millis() / 200 + 2;
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(
        seen.len() as u128 <= most,
        "{} in {:?}",
        seen.len(),
        start.elapsed()
    );
    let [entry] = &rig.entries()[..] else {
        panic!()
    };
    let body: Value = serde_json::from_str(entry.body.get()).unwrap();
    assert_eq!(body["progress"], 100);
}

#[test]
fn an_outbox_that_cannot_be_written_is_told_and_the_input_is_read_to_its_end() {
    let rig = Rig::new();
    fs::write(
        rig.path("hooks.toml"),
        "outbox_dir = \"/dev/null/x\"\nnode_name = \"n\"\n",
    )
    .unwrap();
    let mut child = rig.monitor().spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for _ in 0..50_000 {
        input
            .write_all(b"{\"type\":\"image-info\",\"messages\":[]}")
            .unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/dev/null/x"), "{said}");
    assert!(said.lines().count() < 10, "{said}");
}

#[test]
fn a_name_that_is_none_is_wrong_usage() {
    for name in ["", "a b", "../x", &"x".repeat(256)] {
        let output = Command::new(env!("CARGO_BIN_EXE_snf-progress-monitor"))
            .arg(name)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name:?}");
    }
}

/// Runs the monitor on an input; returns the messages that it leaves.
fn told_of(input: &[u8]) -> (Vec<Value>, Output) {
    let rig = Rig::new();
    let mut child = rig.monitor().spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let bodies = if rig.path("outbox").exists() {
        rig.entries()
    } else {
        Vec::new()
    };
    let bodies = bodies
        .iter()
        .map(|entry| serde_json::from_str(entry.body.get()).unwrap())
        .collect();
    (bodies, output)
}

fn is_error(body: &Value) -> bool {
    body["type"] == "image-error"
}

#[test]
fn an_image_error_is_found_behind_whatever_garbage() {
    let error = r#"{"type":"image-error","messages":["disk full"]}"#;
    let huge = format!("{{\"log\": \"{}\n", "x".repeat(3 << 20));
    let deep = format!("{}\n", "{\"a\":".repeat(5000));
    let arrays = format!("{{\"a\":{}\n", "[".repeat(5000));
    for garbage in [
        "syntax error near {\n",
        "{\n",
        "}}}\n",
        "near { a \" quote\n",
        "{ \"unterminated\n",
        "{\"key\": \"unterminated\n",
        "{\"key\": \"a\\\n",
        "{\"type\":\"image-info\",\"messages\":[\n",
        "{\"type\":\"image-info\",\n",
        "{\"type\":\n",
        "{\"type\": {\"type\": {\n",
        "{'type': 'image-info'}\n",
        "sh: ${x\r\n",
        "text { on the same line: ",
        "text {\"k\": on the same line: ",
        "{{",
        "{\"a\":1,}",
        "{\"a\":nul}",
        "[1, {\"x\": ",
        "\u{feff}",
        huge.as_str(),
        deep.as_str(),
        arrays.as_str(),
    ] {
        let (told, output) = told_of(format!("{garbage}{error}\n").as_bytes());
        let shown: String = garbage.chars().take(60).collect();
        assert!(output.status.success(), "{shown:?}: {output:?}");
        let [body] = &told[..] else {
            panic!("{shown:?}: {told:?}")
        };
        assert_eq!(body["messages"][0], "disk full", "{shown:?}");
    }
    // Several lines, as some writers make them, are one object.
    let pretty = "{\n  \"type\": \"image-error\",\n  \"details\":\n  {\n    \"a\": [\n      {\"b\": 1}\n    ]\n  }\n}\n";
    let (told, _) = told_of(pretty.as_bytes());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["details"]["a"][0]["b"], 1);
}

#[test]
fn a_string_that_is_no_text_is_replaced_and_not_the_message_lost() {
    for (inside, shown) in [
        (&b"caf\xe9.txt"[..], "caf\u{fffd}.txt"),
        (b"cut \xf0\x9f\x98", "cut \u{fffd}"),
        (b"a\tb\x1b[31m", "a\tb\u{1b}[31m"),
        (b"first\nsecond", "first\nsecond"),
        (br"C:\path \udce9.txt", "C:\\path \u{fffd}.txt"),
        (br"\ud83d\ude00 \u00e9", "\u{1f600} \u{e9}"),
        (br"\ud83dx \u12", "\u{fffd}x \\u12"),
    ] {
        let mut line = br#"{"type":"image-error","messages":[""#.to_vec();
        line.extend_from_slice(inside);
        line.extend_from_slice(b"\"]}\n");
        let (told, output) = told_of(&line);
        let [body] = &told[..] else {
            panic!("{shown:?}: {output:?}")
        };
        assert_eq!(body["messages"][0], shown);
    }
}

#[test]
fn an_image_error_is_not_lost_among_what_came_too_fast() {
    use std::fmt::Write as _;
    let mut input = String::new();
    let info = "{\"type\":\"image-info\",\"messages\":[\"x\"]}\n";
    for number in 0..120 {
        writeln!(
            input,
            "{{\"type\":\"image-error\",\"messages\":[\"{number}\"]}}"
        )
        .unwrap();
        input.push_str(&info.repeat(30));
    }
    let (told, output) = told_of(input.as_bytes());
    assert!(output.status.success());
    let errors: Vec<_> = told.iter().filter(|body| is_error(body)).collect();
    assert_eq!(errors.len(), 120);
    assert_eq!(errors[119]["messages"][0], "119");
}

#[test]
fn a_signal_just_after_an_image_error_does_not_lose_it() {
    for signal in ["TERM", "HUP", "INT"] {
        let rig = Rig::new();
        let mut child = rig.monitor().spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // So that the next message must wait for its turn.
        writeln!(
            input,
            "{{\"type\":\"image-info\",\"messages\":[\"first\"]}}"
        )
        .unwrap();
        let start = Instant::now();
        while !rig.path("outbox").exists() || rig.entries().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(2));
        }
        write!(
            input,
            "{{\"type\":\"image-info\",\"messages\":[\"second\"]}}\n\
             {{\"type\":\"image-warning\",\"messages\":[\"third\"]}}\n\
             {{\"type\":\"image-error\",\"messages\":[\"disk full\"]}}\nno newline {{\"x"
        )
        .unwrap();
        let sent = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let status = child.wait().unwrap();
        assert!(status.success(), "{signal}: {status}");
        drop(input);
        let bodies: Vec<Value> = rig
            .entries()
            .iter()
            .map(|entry| serde_json::from_str(entry.body.get()).unwrap())
            .collect();
        assert_eq!(bodies.len(), 4, "{signal}: {bodies:?}");
        assert!(bodies.iter().any(is_error), "{signal}: {bodies:?}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_by_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let odd = OsStr::from_bytes(b"10.0.0.\xff");
    for name in [
        "GANETI_POST_INSTANCE_NIC0_IP",
        "GANETI_POST_INSTANCE_NAME",
        "GANETI_INSTANCE_TAGS",
        "GANETI_HOOKS_PHASE",
    ] {
        let rig = Rig::new();
        let output = Command::new(env!("CARGO_BIN_EXE_snf-ganeti-hook"))
            .arg("--config")
            .arg(rig.path("hooks.toml"))
            .env_clear()
            .envs(captured())
            .env(name, odd)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(name) && said.contains("UTF-8"), "{said}");
        assert!(
            said.contains(r"10.0.0.\xff") || said.contains(r"10.0.0.\xFF"),
            "{said}"
        );
        assert!(!rig.path("outbox").exists());
    }
    // Another program's variable is none of the hook's business.
    let rig = Rig::new();
    let output = Command::new(env!("CARGO_BIN_EXE_snf-ganeti-hook"))
        .arg("--config")
        .arg(rig.path("hooks.toml"))
        .env_clear()
        .envs(captured())
        .env("OTHER", odd)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(rig.entries().len(), 1);
}
