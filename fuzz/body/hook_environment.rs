//! The environment of Ganeti's hooks: lines of NAME=value.

use agents::ganeti::hook_environment::HookEnvironment;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let Ok(environment) = HookEnvironment::new(variables) else {
        return;
    };
    for instance in [environment.instance(), environment.instance_before()] {
        let Ok(instance) = instance else { continue };
        for nic in &instance.nics {
            let _ = nic.ipv6();
        }
    }
}
