//! Which cluster gets a new server.

use crate::model::entity::{backend, flavor};

/// How many virtual processors a processor may carry: Ganeti's default `vcpu-ratio`.
const VCPU_RATIO: i64 = 4;

/// A cluster, and how much of its processors our servers there have been promised.
pub struct Candidate {
    pub backend: backend::Model,
    pub vcpus: i64,
}

/// The cluster that is the least full, among those that can take a server of this flavor.
///
/// None can: the caller refuses; a cluster is never overcommitted because all are full.
pub fn choose<'a>(
    candidates: &'a [Candidate],
    flavor: &flavor::Model,
) -> Option<&'a backend::Model> {
    candidates
        .iter()
        .filter(|candidate| fits(candidate, flavor))
        .min_by(|left, right| {
            load(left)
                .total_cmp(&load(right))
                .then(left.backend.id.cmp(&right.backend.id))
        })
        .map(|candidate| &candidate.backend)
}

fn fits(candidate: &Candidate, flavor: &flavor::Model) -> bool {
    let backend = &candidate.backend;
    !backend.offline
        && !backend.drained
        && backend.measured_at.is_some()
        && has_template(backend, &flavor.disk_template)
        && backend.memory_free > flavor.ram
        && backend.disk_free >= disk_need(flavor)
        && candidate.vcpus.saturating_add(flavor.vcpus) <= backend.cpus.saturating_mul(VCPU_RATIO)
}

fn has_template(backend: &backend::Model, template: &str) -> bool {
    match backend.disk_templates.as_array() {
        Some(known) if !known.is_empty() => {
            known.iter().any(|name| name.as_str() == Some(template))
        }
        _ => true,
    }
}

/// What a server of this flavor takes of the disks that `disk_free` counts, in MiB.
pub fn disk_need(flavor: &flavor::Model) -> i64 {
    let copies = match flavor.disk_template.as_str() {
        "diskless" => 0,
        "drbd" => 2,
        _ => 1,
    };
    flavor.disk.saturating_mul(1024).saturating_mul(copies)
}

fn load(candidate: &Candidate) -> f64 {
    let backend = &candidate.backend;
    let processors = share(candidate.vcpus, backend.cpus.saturating_mul(VCPU_RATIO));
    let memory = share(
        backend.memory_total.saturating_sub(backend.memory_free),
        backend.memory_total,
    );
    let disk = share(
        backend.disk_total.saturating_sub(backend.disk_free),
        backend.disk_total,
    );
    0.5 * processors + 0.5 * (memory + disk)
}

#[expect(clippy::cast_precision_loss, reason = "a share, only compared")]
fn share(used: i64, total: i64) -> f64 {
    if total > 0 {
        used as f64 / total as f64
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn candidate(id: i64, memory_free: i64, vcpus: i64) -> Candidate {
        Candidate {
            backend: backend::Model {
                id,
                name: format!("cluster{id}"),
                url: String::new(),
                username: String::new(),
                password_file: String::new(),
                ca_file: None,
                insecure: false,
                mac_index: 0,
                offline: false,
                drained: false,
                hvparams: json!({}),
                os_params: json!({}),
                disk_templates: json!(["file", "drbd"]),
                memory_total: 1000,
                memory_free,
                disk_total: 10_240,
                disk_free: 10_240,
                cpus: 2,
                instances: 0,
                measured_at: Some(1),
                version: None,
                cluster: None,
            },
            vcpus,
        }
    }

    fn flavor(template: &str, ram: i64, disk: i64, vcpus: i64) -> flavor::Model {
        flavor::Model {
            id: 1,
            name: String::new(),
            vcpus,
            ram,
            disk,
            disk_template: template.to_owned(),
            disk_provider: None,
            public: true,
            allow_create: true,
            created_at: 0,
            deleted_at: None,
        }
    }

    fn chosen(candidates: &[Candidate], flavor: &flavor::Model) -> Option<i64> {
        choose(candidates, flavor).map(|backend| backend.id)
    }

    #[test]
    fn the_emptiest_that_fits_is_taken() {
        let both = [candidate(1, 300, 0), candidate(2, 900, 0)];
        assert_eq!(chosen(&both, &flavor("file", 100, 1, 1)), Some(2));
        let busy = [candidate(1, 900, 0), candidate(2, 900, 6)];
        assert_eq!(chosen(&busy, &flavor("file", 100, 1, 1)), Some(1));
        let same = [candidate(2, 900, 0), candidate(1, 900, 0)];
        assert_eq!(chosen(&same, &flavor("file", 100, 1, 1)), Some(1));
    }

    #[test]
    fn when_none_fits_none_is_overcommitted() {
        let candidates = [candidate(1, 300, 0), candidate(2, 900, 8)];
        assert_eq!(chosen(&candidates, &flavor("file", 900, 1, 1)), None);
        assert_eq!(chosen(&candidates, &flavor("file", 100, 11, 1)), None);
        assert_eq!(chosen(&candidates, &flavor("drbd", 100, 6, 1)), None);
        assert_eq!(chosen(&candidates, &flavor("file", 100, 1, 9)), None);
        assert_eq!(chosen(&candidates, &flavor("rbd", 100, 1, 1)), None);
    }

    #[test]
    fn a_cluster_that_is_off_or_was_never_measured_is_not_asked() {
        let wanted = flavor("file", 100, 1, 1);
        let mut off = candidate(1, 900, 0);
        off.backend.offline = true;
        let mut drained = candidate(2, 900, 0);
        drained.backend.drained = true;
        let mut new = candidate(3, 900, 0);
        new.backend.measured_at = None;
        new.backend.cpus = 0;
        assert_eq!(chosen(&[off, drained, new], &wanted), None);
    }
}
