//! The names of our objects in Ganeti, from and to the ids of our tables.

use agents::ganeti::names::Names;

/// [`Names`] with the ids as the database has them.
#[derive(Debug, Clone)]
pub struct Naming(Names);

impl Naming {
    pub fn new(names: Names) -> Self {
        Self(names)
    }

    pub fn prefix(&self) -> &str {
        self.0.prefix()
    }

    pub fn instance(&self, id: i64) -> String {
        self.0.instance(id.unsigned_abs())
    }

    pub fn network(&self, id: i64) -> String {
        self.0.network(id.unsigned_abs())
    }

    pub fn nic(&self, id: i64) -> String {
        self.0.nic(id.unsigned_abs())
    }

    pub fn volume(&self, id: i64) -> String {
        self.0.volume(id.unsigned_abs())
    }

    pub fn instance_id(&self, name: &str) -> Option<i64> {
        i64::try_from(self.0.instance_id(name)?).ok()
    }

    pub fn network_id(&self, name: &str) -> Option<i64> {
        i64::try_from(self.0.network_id(name)?).ok()
    }

    pub fn nic_id(&self, name: &str) -> Option<i64> {
        i64::try_from(self.0.nic_id(name)?).ok()
    }

    pub fn volume_id(&self, name: &str) -> Option<i64> {
        i64::try_from(self.0.volume_id(name)?).ok()
    }
}
