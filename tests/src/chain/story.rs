//! What a person does with the cloud, each step looked at from both ends: in the guest, on its
//! console, and in the API.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::Chain;
use super::api::{Api, addresses};
use super::timeline::Timeline;
use crate::guest::{BOOT, Console};
use crate::wait::{self, Look};

/// How long Ganeti may take over a job on a busy machine.
const JOB: Duration = Duration::from_secs(240);

/// How often the API is asked: as a page in a browser would.
const ASK: Duration = Duration::from_millis(250);

/// A network that the seed offers, and its gateways as the guests know them.
struct Network {
    name: &'static str,
    gateway4: &'static str,
    gateway6: &'static str,
}

const BRIDGED: Network = Network {
    name: "bridged",
    gateway4: "10.66.1.1",
    gateway6: "fd66:1::1",
};
const ROUTED: Network = Network {
    name: "routed",
    gateway4: "10.66.2.1",
    gateway6: "fd66:2::1",
};

/// The whole story on a chain that is up.
///
/// # Errors
/// The first step that was not seen to happen.
pub fn tell(chain: &Chain, timeline: &mut Timeline) -> Result<()> {
    let api = timeline.step("log in: a token for the API", || log_in(chain))?;
    let first = life(chain, &api, timeline, &BRIDGED)?;

    timeline.step("stop: the guest powers off, the API says SHUTOFF", || {
        api.action(&first.id, &json!({"os-stop": null}))?;
        wait_for_status(&api, &first.id, "SHUTOFF")?;
        wait::until_true("QEMU's end", JOB, || chain.console(&first.id).is_err())
    })?;
    timeline.step("start: it boots, the API says ACTIVE", || {
        api.action(&first.id, &json!({"os-start": null}))?;
        wait_for_status(&api, &first.id, "ACTIVE")?;
        has_its_network(&mut first.console(chain)?, &api, &first.id, &BRIDGED)
    })?;
    timeline.step(
        "reboot: another boot, the API says ACTIVE, the same addresses",
        || {
            let before = first
                .console(chain)?
                .run("cat /proc/sys/kernel/random/boot_id", BOOT)?;
            api.action(&first.id, &json!({"reboot": {"type": "HARD"}}))?;
            wait::until("another boot of the guest", JOB, || {
                match first.console(chain).and_then(|mut console| {
                    console.run("cat /proc/sys/kernel/random/boot_id", wait::USUAL)
                }) {
                    Ok(now) if now != before => Look::Done(()),
                    Ok(_) => Look::NotYet("the same boot".to_owned()),
                    Err(error) => Look::NotYet(format!("{error:#}")),
                }
            })?;
            wait_for_status(&api, &first.id, "ACTIVE")?;
            has_its_network(&mut first.console(chain)?, &api, &first.id, &BRIDGED)
        },
    )?;

    let second = life(chain, &api, timeline, &ROUTED)?;

    timeline.step(
        "delete both: gone from the API, from Ganeti and from the node",
        || {
            for server in [&first, &second] {
                let path = format!("/compute/v2.0/servers/{}", server.id);
                api.expect("DELETE", &path, None, 204)?;
            }
            for server in [&first, &second] {
                wait_until_gone(&api, &server.id)?;
            }
            let left = chain.cluster.rapi("GET", "/2/instances", None)?;
            ensure!(
                left.as_array().is_some_and(Vec::is_empty),
                "Ganeti still has {left}"
            );
            let links = chain.node().netns().ip("-o link show type tun")?;
            ensure!(links.trim().is_empty(), "the node still has {links}");
            Ok(())
        },
    )
}

/// Logs in as the seed's user.
///
/// # Errors
/// The API refuses.
pub fn log_in(chain: &Chain) -> Result<Api> {
    let mut api = chain.api();
    let wrong = api.clone().log_in("demo", "not the password", "demo");
    ensure!(wrong.is_err(), "a wrong password was accepted");
    api.log_in("demo", "demo-password", "demo")?;
    Ok(api)
}

/// A server that was seen to come up.
#[derive(Debug)]
pub struct Server {
    /// Its id in the API.
    pub id: String,
}

impl Server {
    fn console(&self, chain: &Chain) -> Result<Console> {
        wait::until_ok("the guest's console", JOB, || {
            let mut console = chain.console(&self.id)?;
            console.wait_for_shell(BOOT)?;
            Ok(console)
        })
    }
}

/// Creates a server and sees it come up, in the API and in the guest.
fn life(chain: &Chain, api: &Api, timeline: &mut Timeline, network: &Network) -> Result<Server> {
    let name = network.name;
    let id = timeline.step(
        &format!("create a server on the {name} network: BUILD"),
        || api.create(&format!("my-{name}"), "tiny", "busybox", name),
    )?;
    timeline.step("BUILD with progress, then ACTIVE", || build(api, &id))?;
    let server = Server { id };
    let mut console = timeline.step("the guest boots", || server.console(chain))?;
    timeline.step("DHCPv4 lease, IPv6 address, both gateways answer", || {
        has_its_network(&mut console, api, &server.id, network)
    })?;
    timeline.step("the image is on its disk", || {
        let head = console.run("head -n 1 /dev/vda", wait::USUAL)?;
        ensure!(
            head.starts_with("image of the demo: ok"),
            "the disk begins with {head:?}"
        );
        Ok(())
    })?;
    Ok(server)
}

/// Creates a server and waits until it is up.
///
/// # Errors
/// It does not come up.
pub fn create_and_wait(chain: &Chain, api: &Api, name: &str) -> Result<Server> {
    let id = api.create(name, "tiny", "busybox", BRIDGED.name)?;
    wait_for_status(api, &id, "ACTIVE")?;
    let server = Server { id };
    has_its_network(&mut server.console(chain)?, api, &server.id, &BRIDGED)?;
    Ok(server)
}

/// Watches a build: progress must be seen to move while it lasts.
fn build(api: &Api, id: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    wait::until_every(ASK, "ACTIVE", JOB, || match api.server(id) {
        Err(error) => Look::Failed(format!("{error:#}")),
        Ok(server) => {
            seen.extend(server["progress"].as_u64());
            match server["status"].as_str() {
                Some("ACTIVE") => Look::Done(()),
                Some("BUILD") => Look::NotYet(format!("BUILD, progress {}", server["progress"])),
                _ => Look::Failed(server.to_string()),
            }
        }
    })?;
    let moving = seen
        .iter()
        .filter(|progress| (1..100).contains(*progress))
        .count();
    ensure!(
        moving > 0,
        "no progress was seen during the build, only {seen:?}"
    );
    Ok(())
}

/// Waits until the API shows a server in a state.
///
/// # Errors
/// It never did, or the server is in ERROR.
pub fn wait_for_status(api: &Api, id: &str, status: &str) -> Result<()> {
    wait::until(&format!("{status} of server {id}"), JOB, || {
        match api.server(id) {
            Ok(server) if server["status"] == status => Look::Done(()),
            Ok(server) if server["status"] == "ERROR" => Look::Failed(server.to_string()),
            Ok(server) => Look::NotYet(format!(
                "{} ({})",
                server["status"], server["OS-EXT-STS:task_state"]
            )),
            Err(error) => Look::NotYet(format!("{error:#}")),
        }
    })
}

fn wait_until_gone(api: &Api, id: &str) -> Result<()> {
    let path = format!("/compute/v2.0/servers/{id}");
    wait::until_every(ASK, &format!("the end of server {id}"), JOB, || {
        match api.request("GET", &path, None) {
            Ok((404, _)) => Look::Done(()),
            Ok((200, answer)) if answer["server"]["status"] == "DELETED" => Look::Done(()),
            Ok((_, answer)) => Look::NotYet(answer["server"]["status"].to_string()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        }
    })
}

/// Sees that the guest has the addresses that the API shows, and reaches its gateways.
fn has_its_network(console: &mut Console, api: &Api, id: &str, network: &Network) -> Result<()> {
    let (v4, v6) = wait::until_every(ASK, "both addresses in the API", JOB, || {
        match api.server(id) {
            Ok(server) => match (&*addresses(&server, 4), &*addresses(&server, 6)) {
                ([v4], [v6]) => Look::Done((v4.clone(), v6.clone())),
                _ => Look::NotYet(server["addresses"].to_string()),
            },
            Err(error) => Look::NotYet(format!("{error:#}")),
        }
    })?;
    for (family, address) in [("-4", &v4), ("-6", &v6)] {
        wait_for_address(console, family, address)?;
    }
    for gateway in [network.gateway4, network.gateway6] {
        console
            .run_until(
                &format!("ping -c 1 -W 2 {gateway}"),
                Duration::from_secs(40),
            )
            .with_context(|| format!("gateway {gateway} of the {} network", network.name))?;
    }
    Ok(())
}

fn wait_for_address(console: &mut Console, family: &str, address: &str) -> Result<()> {
    // as the guest's `ip` prints it: with the prefix length, not tentative any more
    let what = format!("{address} on the guest's NIC");
    wait::until(&what, Duration::from_secs(60), || {
        match console.run(&format!("ip {family} addr show dev eth0"), wait::USUAL) {
            Ok(text) => {
                let there = text.lines().any(|line| {
                    line.contains(&format!(" {address}/")) && !line.contains("tentative")
                });
                if there {
                    Look::Done(())
                } else {
                    Look::NotYet(text)
                }
            }
            Err(error) => Look::Failed(format!("{error:#}")),
        }
    })
}

/// Sees that what the API says of a server is what Ganeti says.
///
/// # Errors
/// They differ.
pub fn agrees_with_ganeti(chain: &Chain, api: &Api, server: &Server) -> Result<()> {
    let there = chain
        .cluster
        .rapi("GET", &format!("/2/instances/snf-{}", server.id), None)?;
    let here = api.server(&server.id)?;
    match (there["status"].as_str(), here["status"].as_str()) {
        (Some("running"), Some("ACTIVE")) | (Some("ADMIN_down"), Some("SHUTOFF")) => Ok(()),
        (ganeti, api) => bail!("Ganeti says {ganeti:?}, the API {api:?}"),
    }
}
