//! By which name we were called: Ganeti runs the scripts without arguments.

use std::path::Path;

use agents::ganeti::nic_environment::{Action, Mode};

/// What the name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation {
    /// By Ganeti, for a NIC described by the environment.
    Ganeti {
        /// The way that the script's name says; `ACTION`, if set, must agree.
        action: Action,
        /// The mode that the script's folder says; `MODE` must agree.
        mode: Option<Mode>,
    },
    /// By hand, with arguments.
    CommandLine,
}

impl Invocation {
    /// Understands `argv[0]`: `…/kvm-vif-bridge` (Ganeti 3.0 and 3.1), or
    /// `…/network/<mode>/up` and `…/down` (3.2). Any other name is a command line.
    pub fn of(program: &Path) -> Self {
        let part = |steps: usize| {
            let ancestor = program.ancestors().nth(steps)?;
            ancestor.file_name()?.to_str()
        };
        if part(0) == Some("kvm-vif-bridge") {
            return Self::Ganeti {
                action: Action::Up,
                mode: None,
            };
        }
        let action = match part(0) {
            Some("up") => Action::Up,
            Some("down") => Action::Down,
            _ => return Self::CommandLine,
        };
        let mode = match part(1) {
            Some("bridged") => Mode::Bridged,
            Some("routed") => Mode::Routed,
            Some("openvswitch") => Mode::OpenVSwitch,
            Some("ext") => Mode::Ext,
            _ => return Self::CommandLine,
        };
        Self::Ganeti {
            action,
            mode: Some(mode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ganetis_names_are_known() {
        let up = |mode| Invocation::Ganeti {
            action: Action::Up,
            mode,
        };
        let down = |mode| Invocation::Ganeti {
            action: Action::Down,
            mode,
        };
        for (name, invocation) in [
            ("/etc/ganeti/kvm-vif-bridge", up(None)),
            ("kvm-vif-bridge", up(None)),
            ("/etc/ganeti/network/bridged/up", up(Some(Mode::Bridged))),
            ("/etc/ganeti/network/routed/down", down(Some(Mode::Routed))),
            ("/etc/ganeti/network/ext/up", up(Some(Mode::Ext))),
            ("/usr/sbin/snf-ifup", Invocation::CommandLine),
            ("/usr/sbin/up", Invocation::CommandLine),
            ("up", Invocation::CommandLine),
            ("", Invocation::CommandLine),
        ] {
            assert_eq!(Invocation::of(Path::new(name)), invocation, "{name}");
        }
    }
}
