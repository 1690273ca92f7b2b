//! What ifup makes of its environment: lines of NAME=value.

use ifup::config::Config;
use ifup::request::Request;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match Request::new(&variables, &Config::default()) {
        // it becomes a file's name and an argument to the kernel
        Ok(request) => assert!(agents::binding::is_interface_name(request.interface())),
        Err(error) => assert!(error.to_string().len() < 4000),
    }
}
