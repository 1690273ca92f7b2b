//! What a cluster has left, from what its RAPI says of its nodes.

use serde_json::Value;

/// Sums over the nodes that can take instances. Sizes are in MiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    pub memory_total: i64,
    pub memory_free: i64,
    pub disk_total: i64,
    pub disk_free: i64,
    pub cpus: i64,
    pub instances: i64,
}

impl Capacity {
    /// The sums over `GET /2/nodes?bulk=1`. Nodes that are offline, drained or not for
    /// instances do not count, nor does what a node does not know of itself.
    pub fn of_nodes(nodes: &Value) -> Self {
        let mut sum = Self::default();
        for node in nodes.as_array().into_iter().flatten() {
            let flag = |name: &str| node.get(name).and_then(Value::as_bool).unwrap_or(false);
            if flag("offline") || flag("drained") || !flag("vm_capable") {
                continue;
            }
            let number = |name: &str| node.get(name).and_then(Value::as_i64).unwrap_or(0).max(0);
            sum.memory_total = sum.memory_total.saturating_add(number("mtotal"));
            sum.memory_free = sum.memory_free.saturating_add(number("mfree"));
            sum.disk_total = sum.disk_total.saturating_add(number("dtotal"));
            sum.disk_free = sum.disk_free.saturating_add(number("dfree"));
            sum.cpus = sum.cpus.saturating_add(number("ctotal"));
            sum.instances = sum.instances.saturating_add(number("pinst_cnt"));
        }
        sum
    }
}

/// The disk templates that `GET /2/info` has enabled; empty if it does not say.
pub fn disk_templates(info: &Value) -> Vec<String> {
    // Ganeti 3.0 has it at the top, or in the ipolicy; both are lists of names.
    info.get("enabled_disk_templates")
        .or_else(|| info.get("ipolicy")?.get("disk-templates"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_usable_nodes_count() {
        let node = |offline: bool, vm: bool| {
            json!({"offline": offline, "drained": false, "vm_capable": vm, "mtotal": 100,
                   "mfree": 60, "dtotal": null, "dfree": "many", "ctotal": 4, "pinst_cnt": 2})
        };
        let nodes = json!([
            node(false, true),
            node(true, true),
            node(false, false),
            5,
            {}
        ]);
        let expected = Capacity {
            memory_total: 100,
            memory_free: 60,
            disk_total: 0,
            disk_free: 0,
            cpus: 4,
            instances: 2,
        };
        assert_eq!(Capacity::of_nodes(&nodes), expected);
        assert_eq!(Capacity::of_nodes(&json!(null)), Capacity::default());
    }
}
