//! A job as RAPI shows it, told in the words of eventd's messages: for when no eventd tells it.

use agents::message::{
    EventTime, InstanceHvparams, InstanceNic, NetworkFields, NetworkMessage, OpMessage,
};
use serde_json::Value;

/// What a job says of one of our objects.
#[derive(Debug, PartialEq)]
pub enum Told {
    Op(Box<OpMessage>),
    Network(Box<NetworkMessage>),
}

/// The messages that eventd would send for the job as it is now, one for each operation on an
/// instance or a network. A job that is not in the queue has none.
pub fn tell(job: &Value, cluster: &str) -> Vec<Told> {
    let Some(id) = job.get("id").and_then(Value::as_u64) else {
        return Vec::new();
    };
    let list = |name: &str| job.get(name).and_then(Value::as_array);
    let (Some(ops), Some(statuses)) = (list("ops"), list("opstatus")) else {
        return Vec::new();
    };
    ops.iter()
        .zip(statuses)
        .enumerate()
        .filter_map(|(index, (op, status))| {
            let status = status.as_str()?;
            let operation = op.get("OP_ID")?.as_str()?;
            if op.get("dry_run") == Some(&Value::Bool(true)) {
                return None;
            }
            let event_time = time(job, status)?;
            let result = list("opresult")
                .and_then(|results| results.get(index))
                .cloned()
                .unwrap_or_default();
            if operation.starts_with("OP_NETWORK_") {
                return Some(Told::Network(Box::new(NetworkMessage {
                    event_time,
                    network: op.get("network_name")?.as_str()?.to_owned(),
                    operation: operation.to_owned(),
                    status: status.to_owned(),
                    job_id: id,
                    cluster: cluster.to_owned(),
                    logmsg: Value::Null,
                    result,
                    job_fields: NetworkFields::default(),
                })));
            }
            // As eventd has it: of others they hold for one start alone.
            let tells_parameters =
                matches!(operation, "OP_INSTANCE_CREATE" | "OP_INSTANCE_SET_PARAMS");
            let mut fields = serde_json::Map::new();
            if let Some(params) = op.get("beparams")
                && tells_parameters
                && params.is_object()
            {
                fields.insert("beparams".to_owned(), params.clone());
            }
            let is_tags = matches!(operation, "OP_TAGS_SET" | "OP_TAGS_DEL");
            let (instance, tags) = if is_tags {
                if op.get("kind")?.as_str()? != "instance" {
                    return None;
                }
                let tags = op.get("tags")?.as_array()?;
                let tags = tags.iter().filter_map(Value::as_str).map(str::to_owned);
                (op.get("name")?, tags.collect())
            } else {
                (op.get("instance_name")?, Vec::new())
            };
            Some(Told::Op(Box::new(OpMessage {
                event_time,
                instance: instance.as_str()?.to_owned(),
                operation: operation.to_owned(),
                status: status.to_owned(),
                job_id: id,
                cluster: cluster.to_owned(),
                logmsg: Value::Null,
                result,
                job_fields: Value::Object(fields),
                tags,
                instance_nics: None,
                instance_disks: None,
                instance_hvparams: None,
            })))
        })
        .collect()
}

/// Returns whether `result` is that of a creation that was refused since the cluster has an instance of
/// this name: `[exception, [text, code]]` with `errors.ECODE_EXISTS`.
pub fn name_is_taken(result: &Value) -> bool {
    result.pointer("/1/1").and_then(Value::as_str) == Some("already_exists")
}

/// When the job came to its status.
fn time(job: &Value, status: &str) -> Option<EventTime> {
    let stamp = |name: &str| {
        let pair = job.get(name)?.as_array()?;
        let seconds = pair.first()?.as_u64()?;
        let micros = u32::try_from(pair.get(1)?.as_u64()?).ok()?;
        EventTime::new(seconds, micros)
    };
    match status {
        "queued" => stamp("received_ts"),
        "waiting" | "running" | "canceling" => stamp("start_ts").or_else(|| stamp("received_ts")),
        // A job that was canceled before it began has no end.
        _ => stamp("end_ts").or_else(|| stamp("received_ts")),
    }
}

/// The NICs of an instance as `GET /2/instances/N` or the bulk list has them.
pub fn nics(instance: &Value) -> Vec<InstanceNic> {
    let column = |name: &str| instance.get(name).and_then(Value::as_array);
    let tags: Vec<&str> = column("tags")
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let text = |name: &str, index: usize| {
        column(name)
            .and_then(|values| values.get(index))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let count = column("nic.macs").map_or(0, Vec::len);
    (0..count)
        .map(|index| {
            let name = text("nic.names", index);
            let profile = |key: &str| {
                let start = format!("synnefo:network:{key}:");
                tags.iter()
                    .find_map(|tag| tag.strip_prefix(start.as_str()))
                    .map(str::to_owned)
            };
            InstanceNic {
                firewall: name
                    .as_deref()
                    .and_then(profile)
                    .or_else(|| profile(&index.to_string())),
                name,
                ip: text("nic.ips", index),
                mac: text("nic.macs", index).unwrap_or_default(),
                mode: text("nic.modes", index),
                network: text("nic.networks.names", index),
                link: text("nic.links", index),
                uuid: text("nic.uuids", index),
            }
        })
        .collect()
}

/// What an instance with these `hvparams` boots from; none: they do not say.
pub fn boot(hvparams: &Value) -> Option<InstanceHvparams> {
    let text = |name: &str| {
        hvparams
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let boot_order = text("boot_order")?;
    Some(InstanceHvparams {
        boot_order: Some(boot_order),
        cdrom_image_path: text("cdrom_image_path"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded(name: &str) -> Value {
        let all: Value = serde_json::from_str(include_str!("../../tests/data/rapi.json")).unwrap();
        all[name]["body"].clone()
    }

    #[test]
    fn a_recorded_job_is_told() {
        let told = tell(&recorded("job"), "cluster.gnt.lab");
        let [Told::Op(op)] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!(op.instance, "snf-1");
        assert_eq!(op.operation, "OP_INSTANCE_CREATE");
        assert_eq!(op.job_id, 7);
    }

    #[test]
    fn a_dry_run_tells_nothing_and_only_a_modification_brings_parameters() {
        let told = |operation: &str, dry_run: Value| {
            let job = json!({"id": 3, "opstatus": ["success"], "end_ts": [1, 0], "ops": [
                {"OP_ID": operation, "instance_name": "snf-1", "network_name": "snf-net-1",
                 "dry_run": dry_run, "beparams": {"vcpus": 4, "maxmem": 4096}}]});
            tell(&job, "c")
        };
        for operation in ["OP_INSTANCE_SHUTDOWN", "OP_NETWORK_REMOVE"] {
            assert_eq!(told(operation, json!(true)), []);
            assert_eq!(told(operation, json!(false)).len(), 1);
            assert_eq!(told(operation, Value::Null).len(), 1);
        }
        for (operation, brings) in [
            ("OP_INSTANCE_STARTUP", false),
            ("OP_INSTANCE_REBOOT", false),
            ("OP_INSTANCE_SET_PARAMS", true),
            ("OP_INSTANCE_CREATE", true),
        ] {
            let all = told(operation, json!(false));
            let [Told::Op(op)] = all.as_slice() else {
                panic!("{all:?}");
            };
            let has = op.job_fields.get("beparams").is_some();
            assert_eq!(has, brings, "{operation}");
        }
    }

    #[test]
    fn a_job_that_is_not_there_tells_nothing() {
        assert_eq!(tell(&recorded("no_job"), "c"), []);
        for job in [
            json!(null),
            json!([]),
            json!({"id": 1, "ops": [{}], "opstatus": ["x"]}),
        ] {
            assert_eq!(tell(&job, "c"), [], "{job}");
        }
    }

    #[test]
    fn the_nics_of_a_recorded_instance_are_read() {
        let nics = nics(&recorded("instance"));
        assert_eq!(nics.len(), 1);
        assert_eq!(nics[0].name.as_deref(), Some("snf-nic-1"));
        assert_eq!(nics[0].mac, "aa:00:00:e1:87:fc");
        assert_eq!(nics[0].ip.as_deref(), Some("10.66.1.7"));
        assert_eq!(nics[0].network.as_deref(), Some("net-br"));
        assert_eq!(nics[0].firewall.as_deref(), Some("unprotected"));
    }
}
