//! A node with a job queue, a real broker with a consumer, and the daemon between them.

#![allow(dead_code)] // not every test uses all of it

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use harness::netns::Netns;
use harness::process::{self, Daemon};
use harness::rabbitmq::{Place, RabbitMq};
use harness::scratch::Scratch;
use harness::wait;
use lapin::options::{
    BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use tokio::sync::oneshot;

pub const CLUSTER: &str = "cluster.gnt.lab";
pub const NODE: &str = "node1.gnt.lab";
pub const PORT: u16 = 5672;

/// When a message that must come is given up: a machine may be busy with much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A captured version of a job file.
pub struct Version {
    pub step: String,
    pub job: u64,
    pub content: String,
}

/// Every captured version of every job file, in the order in which they were written.
pub fn captured() -> Vec<Version> {
    let path = harness::source_root().join("eventd/tests/captured/job-versions.jsonl");
    let lines = fs::read_to_string(path).unwrap();
    lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            Version {
                step: line["step"].as_str().unwrap().to_owned(),
                job: line["job"].as_u64().unwrap(),
                content: line["content"].as_str().unwrap().to_owned(),
            }
        })
        .collect()
}

/// The daemon's program: beside a test of its own package, or beside a benchmark.
pub fn program() -> PathBuf {
    option_env!("CARGO_BIN_EXE_snf-ganeti-eventd").map_or_else(
        || harness::program("snf-ganeti-eventd").unwrap(),
        PathBuf::from,
    )
}

/// A message as a consumer has it.
#[derive(Debug, Clone)]
pub struct Received {
    pub key: String,
    pub id: String,
    pub cluster: String,
    pub origin: String,
    /// The headers that are text.
    pub headers: BTreeMap<String, String>,
    pub persistent: bool,
    pub body: Value,
    pub at: Instant,
}

impl Received {
    pub fn job(&self) -> Option<u64> {
        self.body["jobId"].as_u64()
    }

    pub fn status(&self) -> &str {
        self.body["status"].as_str().unwrap_or_default()
    }
}

/// A node: its folders, without broker or daemon.
pub struct Node {
    pub scratch: Scratch,
    pub netns: Netns,
    versions: u64,
}

impl Node {
    /// A node that is the master of a cluster with the captured configuration.
    pub fn new(name: &str) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let netns = Netns::new().unwrap();
        for folder in ["ganeti/queue/archive", "etc"] {
            scratch.folder(folder).unwrap();
        }
        let node = Self {
            scratch,
            netns,
            versions: 0,
        };
        node.set_master(NODE);
        node.put("ganeti/ssconf_cluster_name", &format!("{CLUSTER}\n"));
        node.put(
            "ganeti/config.data",
            include_str!("../../../agents/testdata/config.data"),
        );
        node.configure("");
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub fn queue(&self) -> PathBuf {
        self.path("ganeti/queue")
    }

    pub fn outbox(&self) -> PathBuf {
        self.path("outbox")
    }

    pub fn config(&self) -> PathBuf {
        self.path("etc/eventd.toml")
    }

    /// Writes the configuration: the folders of this node, then `more`, whose first lines
    /// belong to `[amqp]`.
    pub fn configure(&self, more: &str) {
        let root = self.scratch.path().display();
        let config = format!(
            "queue_dir = \"{root}/ganeti/queue\"\nssconf_dir = \"{root}/ganeti\"\n\
             config_data = \"{root}/ganeti/config.data\"\noutbox_dir = \"{root}/outbox\"\n\
             cursor_file = \"{root}/state/cursor.json\"\nnode_name = \"{NODE}\"\n\
             log = \"info,lapin=off\"\n[amqp]\nretry_max = 1\n\
             hosts = [\"amqp://guest:guest@127.0.0.1:{PORT}/%2f\"]\n{more}\n"
        );
        fs::write(self.config(), config).unwrap();
    }

    /// Replaces a file as Ganeti does: writes another and renames it.
    pub fn put(&self, name: &str, content: &str) {
        let target = self.path(name);
        let temporary = target.with_extension("new");
        fs::write(&temporary, content).unwrap();
        fs::rename(&temporary, &target).unwrap();
    }

    pub fn set_master(&self, node: &str) {
        self.put("ganeti/ssconf_master_node", &format!("{node}\n"));
    }

    /// Writes a version of a job file as Ganeti does, under the temporary names it uses.
    pub fn write_job(&mut self, job: u64, content: &str) {
        self.versions += 1;
        let serial = fs::read_to_string(self.queue().join("serial")).unwrap_or_default();
        if serial.trim().parse().unwrap_or(0) < job {
            let temporary = self.queue().join(format!("serial-1-{}.tmp", self.versions));
            fs::write(&temporary, format!("{job}\n")).unwrap();
            fs::rename(temporary, self.queue().join("serial")).unwrap();
        }
        let temporary = if content.starts_with("{\"id\":") {
            format!("job-{job}-1-{}.tmp", self.versions)
        } else {
            format!("job-{job}{:08x}.new", self.versions)
        };
        let temporary = self.queue().join(temporary);
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, self.queue().join(format!("job-{job}"))).unwrap();
    }

    /// Moves a job file into the archive.
    pub fn archive(&self, job: u64) {
        let folder = self.queue().join(format!("archive/{}", job / 10_000));
        fs::create_dir_all(&folder).unwrap();
        let name = format!("job-{job}");
        fs::rename(self.queue().join(&name), folder.join(&name)).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = self.netns.command(program());
        command
            .arg("--config")
            .arg(self.config())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM");
        command
    }

    /// Starts the daemon and waits until it says that it has.
    pub fn start(&self) -> Daemon {
        let log = self.path("eventd.log");
        let before = fs::read_to_string(&log).map_or(0, |log| log.matches("started").count());
        let mut daemon = Daemon::spawn("eventd", self.command().arg("run"), &log).unwrap();
        wait::until_true("eventd to start", wait::USUAL, || {
            daemon.still_runs().unwrap();
            daemon.log().matches("started").count() > before
        })
        .unwrap();
        daemon
    }

    pub fn start_broker(&self) -> RabbitMq {
        let place = Place::Netns(&self.netns);
        RabbitMq::start(place, &self.path("mq"), "127.0.0.1", PORT).unwrap()
    }

    /// Runs the program to its end.
    pub fn run(&self, words: &str) -> process::Output {
        let mut command = self.command();
        command.args(words.split_whitespace());
        process::run(&mut command, wait::USUAL).unwrap()
    }
}

/// A consumer of all messages, or of those with some keys, through a durable queue of its own.
pub struct Consumer {
    background: Option<Background>,
    /// Messages of an earlier connection that nobody has looked at: the broker has them no more.
    before: RefCell<VecDeque<Received>>,
    uri: String,
    netns: Netns,
    keys: String,
}

/// The thread that consumes; it ends, with its connection, when this is dropped.
struct Background {
    messages: Receiver<Received>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Consumer {
    /// Declares exchange and queue, and consumes in the background until the broker goes.
    pub fn new(netns: &Netns, uri: &str) -> Result<Self> {
        Self::of_keys(netns, uri, "#")
    }

    /// The same, but only messages with keys of this pattern come into the queue.
    pub fn of_keys(netns: &Netns, uri: &str, keys: &str) -> Result<Self> {
        let background = Some(consume(netns, uri, keys)?);
        Ok(Self {
            background,
            before: RefCell::default(),
            uri: uri.to_owned(),
            netns: netns.clone(),
            keys: keys.to_owned(),
        })
    }

    /// Consumes again, after the broker was away.
    pub fn reconnect(&mut self) -> Result<()> {
        // The old one first: two would share the messages. It ends by itself if the broker was
        // away, with all that had reached it.
        if let Some(old) = self.background.take() {
            let mut before = self.before.borrow_mut();
            while let Ok(message) = old.messages.recv_timeout(Duration::from_secs(5)) {
                before.push_back(message);
            }
        }
        self.background = Some(consume(&self.netns, &self.uri, &self.keys)?);
        Ok(())
    }

    /// The next message.
    pub fn next(&self) -> Result<Received> {
        self.within(PATIENCE)?.context("no message came in time")
    }

    /// The next message, if one comes so soon.
    pub fn within(&self, limit: Duration) -> Result<Option<Received>> {
        if let Some(message) = self.before.borrow_mut().pop_front() {
            return Ok(Some(message));
        }
        let background = self.background.as_ref().context("not consuming")?;
        match background.messages.recv_timeout(limit) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the consumer's connection ended"),
        }
    }

    /// Messages until one fits.
    pub fn until(&self, fits: impl Fn(&Received) -> bool) -> Result<Vec<Received>> {
        let mut all = Vec::new();
        loop {
            let message = self.next().with_context(|| {
                let last = all.last().map(|one: &Received| one.body.to_string());
                format!("after {} messages, the last {last:?}", all.len())
            })?;
            let last = fits(&message);
            all.push(message);
            if last {
                return Ok(all);
            }
        }
    }

    /// All that comes until nothing has come for so long.
    pub fn drain(&self, quiet: Duration) -> Vec<Received> {
        let mut all = Vec::new();
        while let Ok(Some(message)) = self.within(quiet) {
            all.push(message);
        }
        all
    }
}

fn consume(netns: &Netns, uri: &str, keys: &str) -> Result<Background> {
    let (to, messages) = mpsc::channel();
    let (ready_to, ready) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let (netns, uri, keys) = (netns.clone(), uri.to_owned(), keys.to_owned());
    let thread = thread::spawn(move || {
        let result = netns.enter().and_then(|()| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                tokio::select! {
                    result = consume_all(&uri, &keys, &to, &ready_to) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        let _ = ready_to.send(result.map_err(|error| format!("{error:#}")));
    });
    match ready.recv_timeout(wait::USUAL)? {
        Ok(()) => Ok(Background {
            messages,
            stop: Some(stop),
            thread: Some(thread),
        }),
        Err(error) => bail!("consumer: {error}"),
    }
}

async fn consume_all(
    uri: &str,
    keys: &str,
    to: &mpsc::Sender<Received>,
    ready: &mpsc::Sender<Result<(), String>>,
) -> Result<()> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            "ganeti".into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await?;
    channel
        .queue_declare(
            "test".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        )
        .await?;
    channel
        .queue_bind(
            "test".into(),
            "ganeti".into(),
            keys.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut consumer = channel
        .basic_consume("test".into(), "test".into(), options, FieldTable::default())
        .await?;
    ready.send(Ok(()))?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let properties = &delivery.properties;
        let id = properties.message_id().as_ref();
        let headers: BTreeMap<String, String> = properties
            .headers()
            .iter()
            .flat_map(FieldTable::inner)
            .filter_map(|(name, value)| match value {
                AMQPValue::LongString(text) => {
                    let text = String::from_utf8_lossy(text.as_bytes()).into_owned();
                    Some((name.to_string(), text))
                }
                _ => None,
            })
            .collect();
        let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let received = Received {
            key: delivery.routing_key.to_string(),
            id: id.map(ToString::to_string).unwrap_or_default(),
            cluster: header("x-cluster"),
            origin: header("x-origin"),
            headers,
            persistent: *properties.delivery_mode() == Some(2),
            body: serde_json::from_slice(&delivery.data)?,
            at: Instant::now(),
        };
        if to.send(received).is_err() {
            break;
        }
    }
    Ok(())
}

/// Deletes the exchange, as a person can.
pub fn delete_exchange(netns: &Netns, uri: &str) -> Result<()> {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            let options = lapin::options::ExchangeDeleteOptions::default();
            channel.exchange_delete("ganeti".into(), options).await?;
            Ok(())
        })
    })
}

/// A job with one shutdown of an instance, in some status.
pub fn shutdown_job(job: u64, status: &str) -> String {
    let ended = if matches!(status, "success" | "error" | "canceled") {
        "[1795364300, 5]"
    } else {
        "null"
    };
    format!(
        "{{\"id\": {job}, \"ops\": [{{\"input\": {{\"instance_name\": \"snf-{job}\", \
         \"OP_ID\": \"OP_INSTANCE_SHUTDOWN\"}}, \"status\": \"{status}\", \"result\": null, \
         \"log\": [], \"start_timestamp\": [1795364299, 1], \"exec_timestamp\": [1795364299, 2], \
         \"end_timestamp\": {ended}}}], \"received_timestamp\": [1795364298, 7], \
         \"start_timestamp\": [1795364299, 1], \"end_timestamp\": {ended}}}\n"
    )
}

/// Whether a path is there.
pub fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok()
}
