//! A RAPI for tests: it answers with what a real Ganeti 3.0.2 answered (`data/rapi.json`) and
//! refuses what that one refuses: unknown parameters, networks that are there already.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: Value,
    /// The job that it became.
    pub job: Option<i64>,
}

/// What the RAPI is to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Good,
    /// The job queue is drained: nothing is taken.
    Drained,
    /// Takes the job, and then the connection breaks: 504, as when luxid is slow.
    AnswersLost,
    /// The password is wrong.
    Unauthorized,
}

#[derive(Default)]
struct Inner {
    mood: Mood,
    calls: Vec<Call>,
    jobs: BTreeMap<i64, Value>,
    networks: BTreeMap<String, Value>,
    /// The tags of the cluster, and the calls that changed them.
    cluster_tags: Vec<String>,
    tag_calls: Vec<Call>,
    /// The name of the cluster, if it is not the recorded one.
    cluster: Option<String>,
    /// The NICs of each instance.
    instances: BTreeMap<String, Vec<Value>>,
    /// What else of each instance is not as recorded, by the names of RAPI's fields.
    fields: BTreeMap<String, BTreeMap<String, Value>>,
    next_job: i64,
    /// The next creations fail with these results.
    failures: VecDeque<Value>,
    /// How the jobs that failed did so.
    results: BTreeMap<i64, Value>,
    /// Jobs end by themselves, a moment after they came.
    automatic: bool,
}

#[derive(Clone)]
pub struct FakeRapi {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    recorded: Arc<Value>,
}

impl FakeRapi {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorded = serde_json::from_str(include_str!("../data/rapi.json")).unwrap();
        let rapi = Self {
            address: listener.local_addr().unwrap(),
            inner: Arc::new(Mutex::new(Inner {
                next_job: 7,
                ..Inner::default()
            })),
            recorded: Arc::new(recorded),
        };
        let router = Router::new().fallback(answer).with_state(rapi.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        rapi
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set_mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// From now on jobs succeed by themselves, a moment after they came.
    pub fn succeed(&self) {
        self.inner.lock().unwrap().automatic = true;
    }

    /// The next creation fails with this result.
    pub fn fail(&self, result: Value) {
        self.inner.lock().unwrap().failures.push_back(result);
    }

    /// Somebody changes an instance in Ganeti without us.
    pub fn change(&self, instance: &str, field: &str, value: Value) {
        let mut inner = self.inner.lock().unwrap();
        let fields = inner.fields.entry(instance.to_owned()).or_default();
        fields.insert(field.to_owned(), value);
    }

    /// Somebody changes the NICs of an instance in Ganeti without us.
    pub fn change_nics(&self, instance: &str, change: impl FnOnce(&mut Vec<Value>)) {
        let mut inner = self.inner.lock().unwrap();
        change(inner.instances.get_mut(instance).unwrap());
    }

    /// Somebody removes an instance in Ganeti without us.
    pub fn lose(&self, instance: &str) {
        self.inner.lock().unwrap().instances.remove(instance);
    }

    /// Somebody makes an instance in Ganeti without us.
    pub fn smuggle(&self, instance: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.instances.insert(instance.to_owned(), Vec::new());
    }

    pub fn instances(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        inner.instances.keys().cloned().collect()
    }

    /// The networks, to be changed at will.
    pub fn with_networks<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Value>) -> T) -> T {
        work(&mut self.inner.lock().unwrap().networks)
    }

    /// All jobs leave the queue for the archive, and the archive.
    pub fn forget_jobs(&self) {
        self.inner.lock().unwrap().jobs.clear();
    }

    /// When a job came, as Ganeti writes times.
    pub fn received(&self, job: i64) -> Value {
        self.inner.lock().unwrap().jobs[&job]["received_ts"].clone()
    }

    /// The cluster is called so from now on.
    pub fn rename(&self, cluster: &str) {
        self.inner.lock().unwrap().cluster = Some(cluster.to_owned());
    }

    /// The tags of the cluster.
    pub fn cluster_tags(&self) -> Vec<String> {
        self.inner.lock().unwrap().cluster_tags.clone()
    }

    /// Somebody changes the tags of the cluster without us.
    pub fn change_cluster_tags(&self, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.inner.lock().unwrap().cluster_tags);
    }

    /// The calls that changed the tags of the cluster. They are jobs like the others; here they
    /// have no numbers of their own, so that those of the others do not depend on them.
    pub fn tag_calls(&self) -> Vec<Call> {
        self.inner.lock().unwrap().tag_calls.clone()
    }

    /// The tags of an instance.
    pub fn tags(&self, instance: &str) -> Value {
        let inner = self.inner.lock().unwrap();
        let fields = inner.fields.get(instance);
        let tags = fields.and_then(|fields| fields.get("tags"));
        tags.cloned().unwrap_or_else(|| json!([]))
    }

    /// The calls that made jobs, in order.
    pub fn submissions(&self) -> Vec<Call> {
        let inner = self.inner.lock().unwrap();
        inner
            .calls
            .iter()
            .filter(|call| call.job.is_some())
            .cloned()
            .collect()
    }

    /// The last call that made a job.
    pub fn last(&self) -> Call {
        self.submissions().pop().expect("a submission")
    }

    /// The recorded instance with another name and other NICs.
    fn instance(&self, name: &str, nics: &[Value], inner: &Inner) -> Value {
        let mut instance = self.recorded["instance"]["body"].clone();
        instance["name"] = json!(name);
        instance["tags"] = json!([]);
        for (column, field) in [
            ("nic.names", "name"),
            ("nic.ips", "ip"),
            ("nic.macs", "mac"),
            ("nic.networks.names", "network"),
        ] {
            instance[column] = nics.iter().map(|nic| nic[field].clone()).collect();
        }
        for (field, value) in inner.fields.get(name).into_iter().flatten() {
            instance[field] = value.clone();
        }
        instance
    }

    fn recorded(&self, name: &str) -> Response {
        let answer = &self.recorded[name];
        let status = u16::try_from(answer["status"].as_u64().unwrap()).unwrap();
        respond(StatusCode::from_u16(status).unwrap(), &answer["body"])
    }
}

fn respond(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{body}\n"),
    )
        .into_response()
}

async fn answer(State(rapi): State<FakeRapi>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).unwrap()
    };
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let mut inner = rapi.inner.lock().unwrap();
    let good = parts
        .headers
        .get(header::AUTHORIZATION)
        // central:secret
        .is_some_and(|value| value == "Basic Y2VudHJhbDpzZWNyZXQ=");
    if inner.mood == Mood::Unauthorized || !good {
        return rapi.recorded("unauthorized");
    }
    if parts.method == Method::GET {
        return get(&rapi, &inner, &path, &query);
    }
    if let Some(unknown) = unknown_parameter(&parts.method, &path, &body) {
        println!(
            "unknown parameter {unknown} in {} {path}: {body}",
            parts.method
        );
        return rapi.recorded("unknown_parameter");
    }
    if inner.mood == Mood::Drained {
        return rapi.recorded("drained");
    }
    if path == "/2/tags" && !query.contains("dry-run=1") {
        for tag in tags_of(&query) {
            inner.cluster_tags.retain(|known| *known != tag);
            if parts.method == Method::PUT {
                inner.cluster_tags.push(tag);
            }
        }
        inner.tag_calls.push(Call {
            method: parts.method.to_string(),
            path,
            query,
            body,
            job: Some(1),
        });
        return respond(StatusCode::OK, &json!(1));
    }
    let job = inner.next_job;
    inner.next_job += 1;
    let reason = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("reason="))
        .unwrap_or_default()
        .replace("%3A", ":");
    let opcode = opcode(&parts.method, &path, &body);
    let now = timestamp(Duration::ZERO);
    inner.jobs.insert(
        job,
        json!({
            "id": job, "status": "queued", "opstatus": ["queued"], "opresult": [null],
            "received_ts": now, "start_ts": null, "end_ts": null,
            "ops": [{
                "OP_ID": opcode,
                "instance_name": instance_of(&path, &body),
                "network_name": network_of(&path, &body),
                "beparams": body["beparams"],
                "kind": "instance",
                "name": instance_of(&path, &body),
                "tags": tags_of(&query),
                "reason": [["gnt:user", reason, 1]],
            }],
        }),
    );
    if parts.method == Method::POST && path == "/2/networks" {
        let name = body["network_name"].as_str().unwrap().to_owned();
        inner.networks.insert(name, json!({"group_list": []}));
    }
    if let Some(name) = path
        .strip_prefix("/2/networks/")
        .and_then(|rest| rest.strip_suffix("/connect"))
    {
        let group = json!([[
            body["group_name"],
            body["network_mode"],
            body["network_link"],
            ""
        ]]);
        inner
            .networks
            .entry(name.to_owned())
            .or_insert_with(|| json!({}))["group_list"] = group;
    }
    let failure = match opcode {
        "OP_INSTANCE_CREATE" => inner.failures.pop_front(),
        _ => None,
    };
    match failure {
        Some(result) => drop(inner.results.insert(job, result)),
        None => change_instance(&mut inner, opcode, &path, &query, &body),
    }
    inner.calls.push(Call {
        method: parts.method.to_string(),
        path,
        query,
        body,
        job: Some(job),
    });
    if inner.mood == Mood::AnswersLost {
        return respond(
            StatusCode::GATEWAY_TIMEOUT,
            &json!({"code": 504, "message": "timeout"}),
        );
    }
    respond(StatusCode::OK, &json!(job))
}

fn get(rapi: &FakeRapi, inner: &Inner, path: &str, query: &str) -> Response {
    match path {
        "/2/info" => {
            let mut info = rapi.recorded["info"]["body"].clone();
            info["tags"] = json!(inner.cluster_tags);
            if let Some(cluster) = &inner.cluster {
                info["name"] = json!(cluster);
            }
            respond(StatusCode::OK, &info)
        }
        "/2/features" => rapi.recorded("features"),
        "/2/groups" => rapi.recorded("groups"),
        "/2/nodes" if query.contains("bulk=1") => rapi.recorded("nodes"),
        "/2/jobs" if query.contains("bulk=1") => {
            let jobs = inner.jobs.values();
            let now = jobs.map(|job| job_now(job, inner)).collect();
            respond(StatusCode::OK, &now)
        }
        "/2/instances" if query.contains("bulk=1") => {
            let all = inner.instances.iter();
            let all = all.map(|(name, nics)| rapi.instance(name, nics, inner));
            respond(StatusCode::OK, &all.collect())
        }
        "/2/networks" if query.contains("bulk=1") => {
            let all = inner.networks.iter().map(|(name, network)| {
                let mut network = network.clone();
                network["name"] = json!(name);
                let nics = inner.instances.values().flatten();
                let users = nics.filter(|nic| nic["network"] == json!(name));
                network["inst_list"] = users.map(|_| json!("somebody")).collect();
                network
            });
            respond(StatusCode::OK, &all.collect())
        }
        _ => {
            if let Some(name) = path.strip_prefix("/2/networks/")
                && let Some(network) = inner.networks.get(name)
            {
                return respond(StatusCode::OK, network);
            }
            if let Some(name) = path.strip_prefix("/2/instances/")
                && let Some(nics) = inner.instances.get(name)
            {
                return respond(StatusCode::OK, &rapi.instance(name, nics, inner));
            }
            if let Some(id) = path.strip_prefix("/2/jobs/") {
                let job = id.parse().ok().and_then(|id: i64| inner.jobs.get(&id));
                return match job {
                    Some(job) => respond(StatusCode::OK, &job_now(job, inner)),
                    None => rapi.recorded("no_job"),
                };
            }
            rapi.recorded("not_found")
        }
    }
}

/// Ganeti refuses what it does not know. These are the parameters that the recorded opcodes have.
fn unknown_parameter(method: &Method, path: &str, body: &Value) -> Option<String> {
    let known: &[&str] = match (method.as_str(), path.rsplit('/').next().unwrap_or_default()) {
        ("POST", "instances") => &[
            "__version__",
            "mode",
            "name",
            "os",
            "disk_template",
            "disks",
            "nics",
            "beparams",
            "hvparams",
            "osparams",
            "ip_check",
            "name_check",
            "wait_for_sync",
            "opportunistic_locking",
            "depends",
            "tags",
            "iallocator",
            "pnode",
            "start",
        ],
        ("POST", "networks") => &[
            "network_name",
            "network",
            "gateway",
            "network6",
            "gateway6",
            "mac_prefix",
            "tags",
            "conflicts_check",
            "add_reserved_ips",
            "depends",
        ],
        ("PUT", "connect") => &[
            "group_name",
            "network_mode",
            "network_link",
            "network_vlan",
            "conflicts_check",
            "depends",
        ],
        ("PUT", "disconnect") => &["group_name", "depends"],
        ("PUT" | "DELETE", "tags") => &[],
        ("PUT", "modify") => &[
            "nics", "disks", "beparams", "hvparams", "hotplug", "os_name", "depends",
        ],
        ("PUT", "shutdown") => &["timeout", "depends"],
        ("POST", "reboot") => &["shutdown_timeout", "ignore_secondaries", "depends"],
        ("PUT", "startup") => &["depends"],
        ("DELETE", _) => &["shutdown_timeout", "depends"],
        _ => return Some(path.to_owned()),
    };
    body.as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .find(|name| !known.contains(&name.as_str()))
}

fn timestamp(ago: Duration) -> Value {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - ago;
    json!([since.as_secs(), since.subsec_micros()])
}

/// A job as it is by now.
fn job_now(job: &Value, inner: &Inner) -> Value {
    let mut job = job.clone();
    let received = job["received_ts"][0].as_u64().unwrap() as f64
        + job["received_ts"][1].as_u64().unwrap() as f64 / 1e6;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    if inner.automatic && now.as_secs_f64() - received > 0.2 {
        job["status"] = json!("success");
        job["opstatus"] = json!(["success"]);
        job["start_ts"] = job["received_ts"].clone();
        job["end_ts"] = timestamp(Duration::from_millis(100));
        if let Some(result) = inner.results.get(&job["id"].as_i64().unwrap()) {
            job["status"] = json!("error");
            job["opstatus"] = json!(["error"]);
            job["opresult"] = json!([result]);
        }
    }
    job
}

fn opcode(method: &Method, path: &str, body: &Value) -> &'static str {
    let instance = path.starts_with("/2/instances");
    match (method.as_str(), path.rsplit('/').next().unwrap_or_default()) {
        ("POST", "instances") => "OP_INSTANCE_CREATE",
        ("POST", "networks") => "OP_NETWORK_ADD",
        ("PUT", "connect") => "OP_NETWORK_CONNECT",
        ("PUT", "disconnect") => "OP_NETWORK_DISCONNECT",
        ("PUT", "modify") => "OP_INSTANCE_SET_PARAMS",
        ("PUT", "shutdown") => "OP_INSTANCE_SHUTDOWN",
        ("PUT", "startup") => "OP_INSTANCE_STARTUP",
        ("POST", "reboot") => "OP_INSTANCE_REBOOT",
        ("PUT", "tags") => "OP_TAGS_SET",
        ("DELETE", "tags") => "OP_TAGS_DEL",
        ("DELETE", _) if instance => "OP_INSTANCE_REMOVE",
        ("DELETE", _) => "OP_NETWORK_REMOVE",
        _ => panic!("{method} {path}: {body}"),
    }
}

fn instance_of(path: &str, body: &Value) -> Value {
    match path.strip_prefix("/2/instances/") {
        Some(rest) => json!(rest.split('/').next()),
        None => body["name"].clone(),
    }
}

fn network_of(path: &str, body: &Value) -> Value {
    match path.strip_prefix("/2/networks/") {
        Some(rest) => json!(rest.split('/').next()),
        None => body["network_name"].clone(),
    }
}

/// The tags that a call is about.
fn tags_of(query: &str) -> Vec<String> {
    let url = reqwest::Url::parse(&format!("http://rapi/?{query}")).unwrap();
    url.query_pairs()
        .filter(|(name, _)| name == "tag")
        .map(|(_, tag)| tag.into_owned())
        .collect()
}

fn change_instance(inner: &mut Inner, opcode: &str, path: &str, query: &str, body: &Value) {
    let name = instance_of(path, body)
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let with_mac = |nic: &Value, number: i64| {
        let mut nic = nic.clone();
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        nic["mac"] = json!(format!("aa:00:00:00:{high:02x}:{low:02x}"));
        nic
    };
    let mut number = inner.next_job * 16;
    let mut next = || {
        number += 1;
        number
    };
    match opcode {
        "OP_INSTANCE_CREATE" => {
            let nics = body["nics"].as_array().unwrap();
            let nics = nics.iter().map(|nic| with_mac(nic, next())).collect();
            let disks = body["disks"].as_array().unwrap();
            let column = |name: &str| disks.iter().map(|disk| disk[name].clone()).collect();
            let fields = [
                ("disk.names", column("name")),
                ("disk.sizes", column("size")),
                ("beparams", body["beparams"].clone()),
                (
                    "tags",
                    body.get("tags").cloned().unwrap_or_else(|| json!([])),
                ),
            ];
            let fields = fields.map(|(name, value): (_, Value)| (name.to_owned(), value));
            inner.fields.insert(name.clone(), fields.into());
            inner.instances.insert(name, nics);
        }
        "OP_INSTANCE_REMOVE" => {
            inner.instances.remove(&name);
        }
        "OP_INSTANCE_SHUTDOWN" | "OP_INSTANCE_STARTUP" | "OP_INSTANCE_REBOOT" => {
            let fields = inner.fields.entry(name).or_default();
            let running = opcode != "OP_INSTANCE_SHUTDOWN";
            fields.insert("oper_state".to_owned(), json!(running));
        }
        "OP_NETWORK_REMOVE" => {
            let name = network_of(path, body).as_str().unwrap().to_owned();
            inner.networks.remove(&name);
        }
        "OP_TAGS_DEL" => {
            let fields = inner.fields.entry(name).or_default();
            let tags = fields.entry("tags".to_owned()).or_insert(json!([]));
            let gone = tags_of(query);
            tags.as_array_mut()
                .unwrap()
                .retain(|tag| !gone.iter().any(|gone| tag == gone));
        }
        "OP_TAGS_SET" => {
            let fields = inner.fields.entry(name).or_default();
            let tags = fields.entry("tags".to_owned()).or_insert(json!([]));
            let new = tags_of(query).into_iter().map(Value::from);
            tags.as_array_mut().unwrap().extend(new);
        }
        "OP_INSTANCE_SET_PARAMS" => {
            if let Some(params) = body["hvparams"].as_object() {
                let fields = inner.fields.entry(name.clone()).or_default();
                let effective = params.iter().map(|(name, value)| {
                    let reset = value == "default";
                    let standard = if name == "boot_order" { "disk" } else { "" };
                    (
                        name.clone(),
                        if reset {
                            json!(standard)
                        } else {
                            value.clone()
                        },
                    )
                });
                fields.insert("hvparams".to_owned(), Value::Object(effective.collect()));
            }
            let Some(nics) = inner.instances.get_mut(&name) else {
                return;
            };
            for change in body["nics"].as_array().into_iter().flatten() {
                match change[0].as_str().unwrap() {
                    "add" => nics.push(with_mac(&change[2], next())),
                    "remove" => nics.retain(|nic| nic["name"] != change[1]),
                    other => panic!("{other}"),
                }
            }
        }
        _ => {}
    }
}
