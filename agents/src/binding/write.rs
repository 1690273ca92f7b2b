//! [`Binding`] → the text of a binding file.

use std::fmt;

use super::{Binding, Route};

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.via)
    }
}

impl fmt::Display for Binding {
    /// The text of the file. The keys of the original are always there, empty if there is nothing
    /// to say, since shell scripts of others source these files; ours only if they say something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "INDEV={}", self.indev.as_deref().unwrap_or_default())?;
        writeln!(f, "IP={}", text(self.ip))?;
        writeln!(f, "MAC={}", self.mac)?;
        writeln!(f, "HOSTNAME={}", self.hostname)?;
        writeln!(f, "TAGS=\"{}\"", self.tags.join(" "))?;
        writeln!(f, "GATEWAY={}", text(self.gateway))?;
        writeln!(f, "SUBNET={}", text(self.subnet))?;
        writeln!(f, "GATEWAY6={}", text(self.gateway6))?;
        writeln!(f, "SUBNET6={}", text(self.subnet6))?;
        writeln!(f, "EUI64={}", text(self.eui64))?;
        if let Some(mtu) = self.mtu {
            writeln!(f, "MTU={mtu}")?;
        }
        if self.private {
            writeln!(f, "PRIVATE=yes")?;
        }
        if self.macspoof {
            writeln!(f, "MACSPOOF=yes")?;
        }
        if let Some(ip6) = self.ip6 {
            writeln!(f, "IP6={ip6}")?;
        }
        if !self.nameservers.is_empty() {
            writeln!(f, "NAMESERVERS=\"{}\"", list(&self.nameservers, " "))?;
        }
        if !self.domain.is_empty() {
            writeln!(f, "DOMAIN=\"{}\"", list(&self.domain, " "))?;
        }
        if !self.routes.is_empty() {
            writeln!(f, "ROUTES=\"{}\"", list(&self.routes, ", "))?;
        }
        if self.no_onlink32 {
            writeln!(f, "NO_ONLINK32=yes")?;
        }
        for (key, value) in &self.other {
            writeln!(f, "{key}=\"{value}\"")?;
        }
        Ok(())
    }
}

fn text<T: fmt::Display>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn list<T: fmt::Display>(values: &[T], separator: &str) -> String {
    values
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::parse;

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let mut binding = Binding::new("aa:00:00:12:34:56".parse().unwrap(), "snf-1");
        assert_eq!(parse(&binding.to_string()).unwrap(), binding);
        binding.indev = Some("br0".to_owned());
        binding.ip = Some("10.0.0.5".parse().unwrap());
        binding.subnet = Some("10.0.0.0/24".parse().unwrap());
        binding.gateway = Some("10.0.0.1".parse().unwrap());
        binding.subnet6 = Some("fd66:1::/64".parse().unwrap());
        binding.gateway6 = Some("fd66:1::1".parse().unwrap());
        binding.eui64 = Some("fd66:1::a800:ff:fe12:3456".parse().unwrap());
        binding.ip6 = Some("fd66:1::5".parse().unwrap());
        binding.mtu = Some(1450);
        binding.tags = vec!["a".to_owned(), "b:c".to_owned()];
        binding.private = true;
        binding.macspoof = true;
        binding.nameservers = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        binding.domain = vec![
            "example.com".parse().unwrap(),
            "a.example.com".parse().unwrap(),
        ];
        binding.routes = vec![
            Route {
                destination: "192.0.2.0/24".parse().unwrap(),
                via: "10.0.0.2".parse().unwrap(),
            },
            Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                via: "10.0.0.3".parse().unwrap(),
            },
        ];
        binding.no_onlink32 = true;
        binding.other = vec![("INSTANCE".to_owned(), "x=y z".to_owned())];
        assert_eq!(parse(&binding.to_string()).unwrap(), binding);
    }

    #[test]
    fn the_original_can_read_what_is_written() {
        let text = Binding::new("aa:00:00:12:34:56".parse().unwrap(), "snf-1").to_string();
        for key in [
            "INDEV=",
            "IP=",
            "GATEWAY=",
            "SUBNET=",
            "GATEWAY6=",
            "SUBNET6=",
            "EUI64=",
        ] {
            assert!(text.lines().any(|line| line == key), "{key} in {text}");
        }
        assert!(
            text.contains("MAC=aa:00:00:12:34:56\nHOSTNAME=snf-1\n"),
            "{text}"
        );
    }
}
