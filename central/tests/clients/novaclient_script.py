"""python-novaclient, by v2 and v3 passwords and a token."""

import sys

from keystoneauth1 import session
from keystoneauth1.identity import generic, v2, v3
from novaclient import client

from steps import Steps, check, one, wait

BASE, TOKEN = sys.argv[1], sys.argv[2]
FAILURES = 0


def drive(title, auth):
    """Everything a user does, once."""
    step = Steps(title)
    nova = client.Client("2", session=session.Session(auth=auth))
    step("versions", lambda: check(nova.versions.list(), "none"))
    flavor = step("flavors", lambda: one([f for f in nova.flavors.list() if f.name == "tiny"], "tiny"))
    small = step("another flavor", lambda: one([f for f in nova.flavors.list() if f.name == "small"], "small"))
    image = step("images", lambda: nova.glance.find_image("busybox"))
    network = step("networks", lambda: nova.neutron.find_network("bridged"))
    step("availability zones", lambda: check(nova.availability_zones.list(detailed=False), "none"))
    step("limits", lambda: check(nova.limits.get() is not None, "none"))
    key = step("keypair", lambda: nova.keypairs.create("nova-key"))
    step("keypairs", lambda: one([k for k in nova.keypairs.list() if k.name == "nova-key"], "nova-key"))
    server = step("create", lambda: nova.servers.create(
        "nova-server", image, flavor, nics=[{"net-id": network.id}],
        key_name="nova-key", meta={"role": "test"}, admin_pass="correct horse",
        userdata="#!/bin/sh\n", files={"/etc/motd": "hello"}))
    if server is None:
        return step.failures
    step("password", lambda: check(server.adminPass == "correct horse", server.adminPass))

    def status(wanted):
        def now():
            found = nova.servers.get(server.id)
            return found.status == wanted and not getattr(found, "OS-EXT-STS:task_state")
        wait(wanted, now)

    step("active", lambda: status("ACTIVE"))
    step("list", lambda: one([s for s in nova.servers.list() if s.id == server.id], "server"))
    step("list by name", lambda: one(nova.servers.list(search_opts={"name": "nova-server"}), "server"))
    step("networks of the server", lambda: check(
        len(nova.servers.get(server.id).networks["bridged"]) == 2, "addresses"))
    step("ips", lambda: check(nova.servers.ips(server.id), "none"))
    step("rename", lambda: nova.servers.update(server, name="nova-renamed"))
    step("metadata", lambda: nova.servers.set_meta(server, {"a": "b"}))
    step("metadata is there", lambda: check(nova.servers.get(server.id).metadata["a"] == "b", "metadata"))
    step("metadata delete", lambda: nova.servers.delete_meta(server, ["a"]))
    step("console", lambda: check("token=" in nova.servers.get_vnc_console(
        server, "novnc")["console"]["url"], "URL"))
    step("disks", lambda: one(nova.volumes.get_server_volumes(server.id), "the root disk"))
    step("diagnostics", lambda: nova.servers.diagnostics(server))
    step("soft reboot", lambda: nova.servers.reboot(server, "SOFT"))
    step("active after the soft reboot", lambda: status("ACTIVE"))
    step("reboot", lambda: nova.servers.reboot(server, "HARD"))
    step("active after the reboot", lambda: status("ACTIVE"))
    before = step("interfaces", lambda: nova.servers.interface_list(server))
    step("attach an interface", lambda: nova.servers.interface_attach(server, None, network.id, None))
    step("active with it", lambda: status("ACTIVE"))
    new = step("the new interface", lambda: one(
        {i.port_id for i in nova.servers.interface_list(server)} - {i.port_id for i in before}, "port"))
    step("detach it", lambda: nova.servers.interface_detach(server, new))
    step("active without it", lambda: status("ACTIVE"))
    step("stop", lambda: nova.servers.stop(server))
    step("shut off", lambda: status("SHUTOFF"))
    step("resize", lambda: nova.servers.resize(server, small))
    step("shut off after the resize", lambda: status("SHUTOFF"))
    step("start", lambda: nova.servers.start(server))
    step("active again", lambda: status("ACTIVE"))
    step("delete", lambda: nova.servers.delete(server))
    step("gone", lambda: wait("the end", lambda: server.id not in [s.id for s in nova.servers.list()]))
    step("delete the keypair", lambda: nova.keypairs.delete(key))
    return step.failures


def look_around(auth):
    """What an administrator sees of the clusters."""
    step = Steps("novaclient, administrator")
    nova = client.Client("2", session=session.Session(auth=auth))
    host = step("hypervisors", lambda: one(nova.hypervisors.list(), "cluster"))
    step("one hypervisor", lambda: check(nova.hypervisors.get(host.id).memory_mb > 0, "memory"))
    step("services", lambda: one(nova.services.list(), "cluster"))
    return step.failures


V2 = BASE + "/identity/v2.0"
FAILURES += drive("novaclient, v2 password", v2.Password(V2, "alice", "rabbit", tenant_name="wonderland"))
FAILURES += drive("novaclient, v2 token", v2.Token(V2, TOKEN, tenant_name="wonderland"))
FAILURES += drive("novaclient, v3 password", v3.Password(
    BASE + "/identity/v3", username="alice", password="rabbit", user_domain_name="Default",
    project_name="wonderland", project_domain_name="Default"))
FAILURES += drive("novaclient, whichever", generic.Password(
    BASE + "/identity", username="alice", password="rabbit", user_domain_name="Default",
    project_name="wonderland", project_domain_name="Default"))
FAILURES += look_around(v2.Password(V2, "root", "toor-toor", tenant_name="wonderland"))
sys.exit(1 if FAILURES else 0)
