//! The environment of Ganeti's NIC script: lines of NAME=value, and tags in it.

use agents::ganeti::nic_environment::NicEnvironment;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(error) = NicEnvironment::parse(text.lines().filter_map(|line| line.split_once('=')))
    {
        // it becomes part of a job's error text
        assert!(error.to_string().len() < 2000);
    }
}
