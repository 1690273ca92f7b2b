//! The legacy configuration file of nfdhcpd: what is made of it is a configuration or is refused.

use std::path::Path;

use nfdhcpd::config::{Config, to_toml};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let path = Path::new("nfdhcpd.conf");
    if let Ok(toml) = to_toml(path, text) {
        let _ = Config::parse(path, &toml);
    }
}
