//! A host with nfdhcpd, in a namespace of its own, and guests on its interfaces.

#![allow(dead_code)] // each test file uses a part of it

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use agents::binding::{self, Binding};
use harness::netns::Netns;
use harness::process::Daemon;
use harness::scratch::Scratch;
use harness::tap::{Client, Tap};
use harness::wait;

/// The guest's MAC address on the interface with this number.
pub fn mac(number: u8) -> String {
    format!("aa:00:00:00:00:{number:02x}")
}

/// A host and its nfdhcpd.
pub struct Scene {
    pub host: Netns,
    pub scratch: Scratch,
    pub bindings: PathBuf,
    pub daemon: Option<Daemon>,
}

impl Scene {
    /// A host with a bridge `br0` that has the gateway's addresses, and no nfdhcpd yet.
    pub fn new(purpose: &str) -> Self {
        let scratch = Scratch::new(purpose).unwrap();
        let bindings = scratch.folder("bindings").unwrap();
        let host = Netns::new().unwrap();
        host.ip("link add br0 type bridge").unwrap();
        host.sysctl("net.ipv6.conf.br0.accept_dad", "0").unwrap();
        host.ip("addr add 10.66.1.1/24 dev br0").unwrap();
        host.ip("addr add fd66:1::1/64 dev br0").unwrap();
        host.ip("link set br0 up").unwrap();
        Self {
            host,
            scratch,
            bindings,
            daemon: None,
        }
    }

    /// Starts nfdhcpd with this configuration, besides the folder of bindings, and waits until it
    /// is ready.
    pub fn start(&mut self, configuration: &str) {
        self.spawn(configuration);
        self.wait_for("ready");
    }

    /// Starts nfdhcpd and does not wait.
    pub fn spawn(&mut self, configuration: &str) {
        let text = format!(
            "bindings = {:?}\ncontrol = {:?}\n{configuration}",
            self.bindings,
            self.control()
        );
        let path = self.scratch.write("nfdhcpd.toml", &text).unwrap();
        let mut command = self.host.command(env!("CARGO_BIN_EXE_nfdhcpd"));
        command.arg("--config").arg(path).arg("run");
        // Of a daemon that is started again, the log is new.
        let log = self.scratch.join("nfdhcpd.log");
        let _ = std::fs::remove_file(&log);
        self.daemon = Some(Daemon::spawn("nfdhcpd", &mut command, &log).unwrap());
    }

    /// The daemon's control socket.
    pub fn control(&self) -> PathBuf {
        self.scratch.join("run/control")
    }

    /// Runs another command of nfdhcpd with the daemon's configuration; returns what it printed.
    pub fn nfdhcpd(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_nfdhcpd"));
        command
            .arg("--config")
            .arg(self.scratch.join("nfdhcpd.toml"))
            .args(arguments);
        harness::process::check(&mut command, wait::USUAL)
    }

    /// The page of metrics, where the daemon was started with `metrics = "127.0.0.1:9642"`.
    pub fn metrics(&self) -> String {
        self.host
            .run(|| {
                let mut stream = TcpStream::connect("127.0.0.1:9642")?;
                stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
                let mut page = String::new();
                stream.read_to_string(&mut page)?;
                Ok(page)
            })
            .unwrap()
    }

    /// The interfaces whose packets the rules queue, as `nft` shows them.
    pub fn queued(&self) -> String {
        let sets = ["bridge", "inet"].map(|family| {
            self.host
                .sh(&format!("nft list set {family} nfdhcpd interfaces"))
                .unwrap()
        });
        sets.concat()
    }

    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    pub fn wait_for(&mut self, text: &str) {
        self.daemon().wait_for_log(text, wait::USUAL).unwrap();
    }

    /// A TAP that is a port of the bridge.
    pub fn bridged(&self, name: &str) -> Tap {
        let tap = Tap::new(&self.host, name).unwrap();
        self.host
            .ip(&format!("link set {name} master br0"))
            .unwrap();
        self.host.ip(&format!("link set {name} up")).unwrap();
        tap
    }

    /// A TAP for which the host routes, as ifup sets it up.
    pub fn routed(&self, name: &str) -> Tap {
        let tap = Tap::new(&self.host, name).unwrap();
        self.host
            .sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0")
            .unwrap();
        self.host.ip(&format!("link set {name} up")).unwrap();
        tap
    }

    /// The binding of a guest on the bridge.
    pub fn bridged_binding(number: u8) -> Binding {
        let mut binding = Binding::new(mac(number).parse().unwrap(), format!("snf-{number}"));
        binding.indev = Some("br0".to_owned());
        binding.ip = Some([10, 66, 1, number].into());
        binding.subnet = Some("10.66.1.0/24".parse().unwrap());
        binding.gateway = Some("10.66.1.1".parse().unwrap());
        binding.subnet6 = Some("fd66:1::/64".parse().unwrap());
        binding.gateway6 = Some("fd66:1::1".parse().unwrap());
        binding
    }

    /// The binding of a guest for which the host routes.
    pub fn routed_binding(number: u8) -> Binding {
        let mut binding = Binding::new(mac(number).parse().unwrap(), format!("snf-{number}"));
        binding.ip = Some([10, 66, 2, number].into());
        binding.subnet = Some("10.66.2.0/24".parse().unwrap());
        binding.gateway = Some("10.66.2.1".parse().unwrap());
        binding.subnet6 = Some("fd66:2::/64".parse().unwrap());
        binding.gateway6 = Some("fd66:2::1".parse().unwrap());
        binding
    }

    pub fn bind(&self, interface: &str, binding: &Binding) {
        binding::save(&self.bindings, interface, binding).unwrap();
    }

    /// Writes a script for udhcpc or dhclient that sets up `eth0` and prints what it was told.
    pub fn client_script(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.scratch.write("client-script", CLIENT_SCRIPT).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs udhcpc until it has a lease; returns what its script printed.
    pub fn udhcpc(&self, client: &Client, arguments: &str) -> anyhow::Result<String> {
        client.namespace.ip("link set eth0 up")?;
        let script = self.client_script();
        let mut command = client.namespace.command("udhcpc");
        command.args(["-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s"]);
        command.arg(script).args(arguments.split_whitespace());
        harness::process::check(&mut command, wait::USUAL)
    }

    /// Runs dhclient until it has a lease, and ends it; returns what it printed.
    pub fn dhclient(&self, client: &Client, arguments: &str) -> anyhow::Result<String> {
        client.namespace.ip("link set eth0 up")?;
        let folder = self.scratch.folder("dhclient")?;
        let conf = self.scratch.write("dhclient.conf", DHCLIENT_CONF)?;
        let mut command: Command = client.namespace.command("dhclient");
        command
            .args(["-1", "-v", "-d", "-e", "ONE_SHOT=1", "-sf"])
            .arg(self.client_script());
        command
            .arg("-lf")
            .arg(folder.join("leases"))
            .arg("-pf")
            .arg(folder.join("pid"));
        command
            .arg("-cf")
            .arg(conf)
            .args(arguments.split_whitespace())
            .arg("eth0");
        let output = harness::process::run(&mut command, wait::USUAL)?;
        Ok(output.stdout + &output.stderr)
    }
}

/// A DHCPDISCOVER (1) or DHCPREQUEST (3) of the guest with this number, as a frame.
pub fn dhcp_frame(number: u8, kind: u8, xid: u32, options: &[u8]) -> Vec<u8> {
    let mac = [0xaa, 0, 0, 0, 0, number];
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[28..34].copy_from_slice(&mac);
    message.extend([99, 130, 83, 99, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    message.resize(300, 0);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(mac, [0xff; 6])
        .ipv4([0; 4], [255; 4], 64)
        .udp(68, 67)
        .write(&mut frame, &message)
        .unwrap();
    frame
}

/// The type of the DHCP message in a frame to the guest, if it is the answer to `xid`.
pub fn dhcp_answer(frame: &[u8], xid: u32) -> Option<u8> {
    let is_answer = frame.get(34..38) == Some(&[0, 67, 0, 68])
        && frame.get(46..50) == Some(&xid.to_be_bytes()[..]);
    // The message type is the first option.
    if is_answer {
        frame.get(42 + 242).copied()
    } else {
        None
    }
}

/// Asks once, and waits for the answer.
pub fn discover(tap: &Tap, number: u8, xid: u32, limit: std::time::Duration) -> Option<Vec<u8>> {
    tap.send(&dhcp_frame(number, 1, xid, &[])).unwrap();
    tap.receive_matching(limit, |frame| dhcp_answer(frame, xid).is_some())
        .unwrap()
}

const DHCLIENT_CONF: &str = "\
timeout 20;
option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search,
 host-name, interface-mtu, ntp-servers, rfc3442-classless-static-routes,
 dhcp6.name-servers, dhcp6.domain-search, dhcp6.fqdn;
";

/// udhcpc calls it with an event and variables of its own names, dhclient with `$reason`. A
/// dhclient that is to be one shot is ended after it is bound.
const CLIENT_SCRIPT: &str = r#"#!/bin/sh
env | grep -vE '^(PATH|PWD|HOME|SHLVL|_)=' | sort | sed 's/^/told: /'
if [ -n "${reason:-}" ]; then
  echo "event: $reason"
  case $reason in
  PREINIT) ip link set "$interface" up ;;
  BOUND|REBOOT|RENEW|REBIND)
    ip addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"
    [ -z "${new_routers:-}" ] || ip route replace default via "$new_routers" dev "$interface"
    [ -z "${ONE_SHOT:-}" ] || kill "$PPID" ;;
  BOUND6|RENEW6|REBIND6)
    [ -z "${new_ip6_address:-}" ] || ip addr replace "$new_ip6_address/128" dev "$interface"
    [ -z "${ONE_SHOT:-}" ] || kill "$PPID" ;;
  esac
  exit 0
fi
echo "event: $1"
case $1 in
bound|renew)
  ip addr replace "$ip/$mask" dev "$interface"
  [ -z "${mtu:-}" ] || ip link set "$interface" mtu "$mtu"
  if [ -n "${staticroutes:-}" ]; then
    set -- $staticroutes
    while [ $# -ge 2 ]; do
      if [ "$2" = 0.0.0.0 ]; then ip route replace "$1" dev "$interface"
      else ip route replace "$1" via "$2" dev "$interface"; fi
      shift 2
    done
  elif [ -n "${router:-}" ]; then
    ip route replace default via "$router" dev "$interface"
  fi ;;
esac
"#;
