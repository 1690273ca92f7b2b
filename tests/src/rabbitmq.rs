//! A RabbitMQ of our own: its node name, ports, data and `epmd` collide with nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::netns::Netns;
use crate::process::{self, Daemon, Output};

/// Where a broker runs.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a network namespace.
    Netns(&'a Netns),
    /// In the network namespace of the calling thread.
    Here,
    /// On a host.
    Host(&'a Host),
}

/// Erlang starts slowly on a shared machine: minutes, if others take all of it.
const START: Duration = Duration::from_secs(300);

/// A running broker; its data stays in its folder until the scratch folder goes.
#[derive(Debug)]
pub struct RabbitMq {
    daemon: Option<Daemon>,
    launch: Launch,
}

/// What is needed to start it again.
#[derive(Debug)]
struct Launch {
    folder: PathBuf,
    address: String,
    port: u16,
    namespace: Option<Netns>,
    /// Whether it is one of a cluster, whose members reach each other by their addresses.
    member: bool,
}

impl RabbitMq {
    /// Starts a broker with its files in `folder`, listening on `address`:`port`; the ports
    /// after that one are its own as well (distribution, epmd). User `guest`, password `guest`.
    ///
    /// # Errors
    /// It does not come up; the text has the end of its log.
    pub fn start(place: Place<'_>, folder: &Path, address: &str, port: u16) -> Result<Self> {
        Self::start_with(place, folder, address, port, "")
    }

    /// [`RabbitMq::start`] with more lines of `rabbitmq.conf`.
    ///
    /// # Errors
    /// As for [`RabbitMq::start`].
    pub fn start_with(
        place: Place<'_>,
        folder: &Path,
        address: &str,
        port: u16,
        configuration: &str,
    ) -> Result<Self> {
        Self::launch(place, folder, address, port, configuration, false)
    }

    fn launch(
        place: Place<'_>,
        folder: &Path,
        address: &str,
        port: u16,
        configuration: &str,
        member: bool,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::write(
            folder.join("rabbitmq.conf"),
            format!(
                "listeners.tcp.1 = {address}:{port}\nloopback_users = none\n\
                 disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 2GB\n\
                 log.console = true\nlog.console.level = info\nlog.file = false\n{configuration}\n"
            ),
        )?;
        fs::write(folder.join("enabled_plugins"), "[].\n")?;
        let namespace = match place {
            Place::Netns(namespace) => Some(namespace.clone()),
            Place::Host(host) => Some(host.netns().clone()),
            Place::Here => None,
        };
        let launch = Launch {
            folder: folder.to_owned(),
            address: address.to_owned(),
            port,
            namespace,
            member,
        };
        let daemon = Some(launch.start()?);
        Ok(Self { daemon, launch })
    }

    /// Starts a member of a cluster, known to the others by its address; the first one has no
    /// `first`, the others join it. As [`RabbitMq::start`] else.
    ///
    /// # Errors
    /// As for [`RabbitMq::start`].
    pub fn start_member(
        place: Place<'_>,
        folder: &Path,
        address: &str,
        port: u16,
        first: Option<&Self>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let cookie = folder.join(".erlang.cookie");
        fs::write(&cookie, "snf-tests")?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        let mut configuration = String::new();
        if let Some(first) = first {
            configuration = format!(
                "cluster_formation.peer_discovery_backend = classic_config\n\
                 cluster_formation.classic_config.nodes.1 = {}",
                first.launch.node()
            );
        }
        Self::launch(place, folder, address, port, &configuration, true)
    }

    /// `amqp://…/%2f`, as seen from its namespace.
    pub fn uri(&self) -> String {
        let Launch { address, port, .. } = &self.launch;
        format!("amqp://guest:guest@{address}:{port}/%2f")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// The process that all of its processes descend from, while it runs.
    pub fn pid(&self) -> Option<nix::unistd::Pid> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Runs `rabbitmqctl` with the words of `arguments`.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn ctl(&self, arguments: &str) -> Result<Output> {
        let mut command = self.launch.command("rabbitmqctl");
        command
            .args(["-q", "-n", &self.launch.node()])
            .args(arguments.split_whitespace());
        process::run(&mut command, START)
    }

    /// Kills the broker, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Stops the broker in order.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(START)?;
        }
        Ok(())
    }

    /// Starts it again with the data it had.
    ///
    /// # Errors
    /// As for [`RabbitMq::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.daemon = Some(self.launch.start()?);
        Ok(())
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        process::tail(&self.launch.folder.join("rabbitmq.log"), 30)
    }

    /// Lets it live on after this process.
    pub fn release(mut self) -> Option<nix::unistd::Pid> {
        self.daemon.take().map(Daemon::release)
    }
}

impl Launch {
    fn node(&self) -> String {
        if self.member {
            return format!("rabbit@{}", self.address);
        }
        format!("snf{}@localhost", self.port)
    }

    /// One of RabbitMQ's programs with this broker's environment. Debian's wrappers in
    /// `/usr/sbin` change the user; the real ones are these.
    fn command(&self, program: &str) -> Command {
        let path = format!("/usr/lib/rabbitmq/bin/{program}");
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(path),
            None => Command::new(path),
        };
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LANG", "C.UTF-8")
            .env("HOME", &self.folder)
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                self.folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.folder.join("log"))
            .env("RABBITMQ_SCHEMA_DIR", self.folder.join("schema"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", self.folder.join("config"))
            .env("RABBITMQ_PID_FILE", self.folder.join("pid"))
            // no second look at the machine's own /etc/rabbitmq
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_DIST_PORT", (self.port + 1).to_string())
            .env("ERL_EPMD_PORT", (self.port + 2).to_string())
            .env(
                "ERL_EPMD_ADDRESS",
                if self.member {
                    &self.address
                } else {
                    "127.0.0.1"
                },
            )
            .env("RABBITMQ_USE_LONGNAME", self.member.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +S 2:2")
            .current_dir(&self.folder);
        command
    }

    fn start(&self) -> Result<Daemon> {
        let log = self.folder.join("rabbitmq.log");
        fs::write(&log, "")?;
        let mut server = self.command("rabbitmq-server");
        let mut daemon = match &self.namespace {
            // `contained` copies program, arguments and environment, not the way into the
            // namespace: enter it around the start
            Some(namespace) => {
                let previous = fs::File::open("/proc/thread-self/ns/net")?;
                namespace.enter()?;
                let started = Daemon::contained("RabbitMQ", &server, &log);
                nix::sched::setns(&previous, nix::sched::CloneFlags::CLONE_NEWNET)
                    .context("back to the caller's network namespace")?;
                started?
            }
            None => {
                server.current_dir(&self.folder);
                Daemon::contained("RabbitMQ", &server, &log)?
            }
        };
        daemon
            .wait_for_log("Server startup complete", START)
            .context("RabbitMQ")?;
        Ok(daemon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_broker_starts_answers_and_keeps_its_data_over_a_kill() {
        let scratch = Scratch::new("rabbitmq").unwrap();
        let namespace = Netns::new().unwrap();
        let place = Place::Netns(&namespace);
        let mut broker = RabbitMq::start(place, &scratch.join("mq"), "127.0.0.1", 5672).unwrap();
        assert!(broker.ctl("add_vhost kept").unwrap().status.success());
        broker.kill();
        broker.restart().unwrap();
        let vhosts = broker.ctl("list_vhosts").unwrap().stdout;
        assert!(vhosts.contains("kept"), "{vhosts}");
    }
}
