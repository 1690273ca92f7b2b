"""openstacksdk, by v2, v3 and generic passwords and a token."""

import base64
import sys

import openstack

from steps import Steps, check, one, wait

BASE, TOKEN = sys.argv[1], sys.argv[2]
FAILURES = 0


def encoded(text):
    """As it stands in a body."""
    return base64.b64encode(text.encode()).decode()


def drive(title, **auth):
    """Everything a user does, once."""
    step = Steps(title)
    cloud = openstack.connect(region_name="RegionOne", load_envvars=False, load_yaml_config=False, **auth)
    flavor = step("flavor", lambda: cloud.compute.find_flavor("tiny", ignore_missing=False))
    small = step("another flavor", lambda: cloud.compute.find_flavor("small", ignore_missing=False))
    image = step("image", lambda: cloud.image.find_image("busybox", ignore_missing=False))
    step("images", lambda: check(list(cloud.image.images()), "none"))
    network = step("network", lambda: cloud.network.find_network("bridged", ignore_missing=False))
    step("key pair", lambda: cloud.compute.create_keypair(name="sdk"))
    step("key pairs", lambda: one([k for k in cloud.compute.keypairs() if k.name == "sdk"], "sdk"))
    server = step("create", lambda: cloud.compute.create_server(
        name="sdk-server", image_id=image.id, flavor_id=flavor.id,
        networks=[{"uuid": network.id}], key_name="sdk", metadata={"role": "test"},
        admin_password="correct horse", user_data=encoded("#!/bin/sh\n"),
        personality=[{"path": "/etc/motd", "contents": encoded("hello")}]))
    if server is None:
        return step.failures
    step("password", lambda: check(server.admin_password == "correct horse", server.admin_password))

    def idle():
        wait("no task", lambda: not cloud.compute.get_server(server.id).task_state)

    def own(what):
        return "/servers/%s/%s" % (server.id, what)

    step("active", lambda: cloud.compute.wait_for_server(server, interval=1, wait=60))
    step("idle", idle)
    step("list", lambda: one([s for s in cloud.compute.servers() if s.id == server.id], "server"))
    step("addresses", lambda: check(len(cloud.compute.get_server(server.id).addresses["bridged"]) == 2, "two"))
    step("server ips", lambda: check(list(cloud.compute.server_ips(server)), "none"))
    step("rename", lambda: check(
        cloud.compute.update_server(server, name="sdk-renamed").name == "sdk-renamed", "rename"))
    step("metadata", lambda: cloud.compute.set_server_metadata(server, a="b"))
    step("metadata delete", lambda: cloud.compute.delete_server_metadata(server, ["a"]))
    step("tag", lambda: server.add_tag(cloud.compute, "blue"))
    step("tags", lambda: check(server.fetch_tags(cloud.compute).tags == ["blue"], server.tags))
    step("other tags", lambda: server.set_tags(cloud.compute, ["red", "green"]))
    step("no tags", lambda: server.remove_all_tags(cloud.compute))
    step("console", lambda: check("token=" in cloud.compute.create_console(
        server, console_type="novnc")["url"], "URL"))
    step("disks", lambda: one(cloud.compute.volume_attachments(server), "the root disk"))
    step("volumes", lambda: one(cloud.block_storage.volumes(), "the root disk"))
    step("password once", lambda: check(
        cloud.compute.get(own("password")).json() == {"password": "correct horse"}, "password"))
    step("and not again", lambda: check(
        cloud.compute.get(own("password")).status_code == 404, "told twice"))
    step("soft reboot", lambda: cloud.compute.reboot_server(server, "SOFT"))
    step("idle after the soft reboot", idle)
    step("reboot", lambda: cloud.compute.reboot_server(server, "HARD"))
    step("idle after the reboot", idle)
    step("stop", lambda: cloud.compute.stop_server(server))
    step("shut off", lambda: cloud.compute.wait_for_server(server, status="SHUTOFF", interval=1, wait=60))
    step("idle when shut off", idle)
    step("resize", lambda: cloud.compute.resize_server(server, small))
    step("idle after the resize", idle)
    step("start", lambda: cloud.compute.start_server(server))
    step("active again", lambda: cloud.compute.wait_for_server(server, interval=1, wait=60))
    step("idle again", idle)
    port = step("ports", lambda: one(cloud.network.ports(device_id=server.id), "port"))
    step("interfaces", lambda: one(cloud.compute.server_interfaces(server), "interface"))
    step("a fixed IP more", lambda: cloud.compute.add_fixed_ip_to_server(server, network.id))
    step("idle with it", idle)
    more = step("it is there", lambda: one(
        [p for p in cloud.network.ports(device_id=server.id) if p.id != port.id], "port"))
    step("the fixed IP goes", lambda: cloud.compute.remove_fixed_ip_from_server(
        server, more.fixed_ips[0]["ip_address"]))
    step("idle without it", idle)
    public = step("public network", lambda: one(cloud.network.networks(is_router_external=True), "public"))
    floating = step("floating IP", lambda: cloud.network.create_ip(floating_network_id=public.id))
    step("attach it", lambda: cloud.network.update_ip(floating, port_id=port.id))
    step("idle with it", idle)
    step("detach it", lambda: cloud.network.update_ip(floating, port_id=None))
    step("idle without it", idle)
    step("release it", lambda: cloud.network.delete_ip(floating, ignore_missing=False))
    made = step("make a network", lambda: cloud.network.create_network(name="sdk-net"))
    subnet = step("make a subnet", lambda: cloud.network.create_subnet(
        network_id=made.id, ip_version=4, cidr="10.9.0.0/24", name="sdk-sub"))
    step("subnets", lambda: one(cloud.network.subnets(network_id=made.id), "subnet"))
    step("delete the subnet", lambda: cloud.network.delete_subnet(subnet, ignore_missing=False))
    step("delete the network", lambda: cloud.network.delete_network(made, ignore_missing=False))
    used = step("another network", lambda: cloud.network.create_network(name="sdk-used"))
    loose = step("make a port", lambda: cloud.network.create_port(network_id=used.id, name="sdk-port"))
    step("rename it", lambda: check(
        cloud.network.update_port(loose, name="sdk-other").name == "sdk-other", "name"))
    step("plug it in", lambda: cloud.compute.create_server_interface(server, port_id=loose.id))
    step("idle when plugged in", idle)
    step("unplug it", lambda: cloud.compute.delete_server_interface(loose.id, server=server))
    step("idle when unplugged", idle)
    step("delete it when unused", lambda: cloud.network.delete_network(used, ignore_missing=False))
    step("availability zones", lambda: check(list(cloud.compute.availability_zones()), "none"))
    step("limits", lambda: check(cloud.compute.get_limits() is not None, "none"))
    registered = step("register an image", lambda: cloud.image.create_image(
        "sdk-image", disk_format="diskdump", container_format="bare",
        source="https://images.example.org/sdk.img", allow_duplicates=True))
    step("change it", lambda: check(
        cloud.image.update_image(registered, name="sdk-image-2").name == "sdk-image-2", "name"))
    step("forget it", lambda: cloud.image.delete_image(registered, ignore_missing=False))
    step("delete", lambda: cloud.compute.delete_server(server, ignore_missing=False))
    step("gone", lambda: cloud.compute.wait_for_delete(server, interval=1, wait=60))
    step("delete the key pair", lambda: cloud.compute.delete_keypair("sdk", ignore_missing=False))
    return step.failures


def look_around(**auth):
    """What an administrator sees of the clusters."""
    step = Steps("openstacksdk, administrator")
    cloud = openstack.connect(region_name="RegionOne", load_envvars=False, load_yaml_config=False, **auth)
    step("hypervisors", lambda: one(cloud.compute.hypervisors(details=True), "cluster"))
    step("services", lambda: one(cloud.compute.services(), "cluster"))
    return step.failures


PASSWORD = {
    "auth_url": BASE + "/identity", "username": "alice", "password": "rabbit",
    "project_name": "wonderland", "user_domain_name": "Default", "project_domain_name": "Default",
}
FAILURES += drive("openstacksdk, v3 password", auth_type="v3password",
                  auth=dict(PASSWORD, auth_url=BASE + "/identity/v3"))
FAILURES += drive("openstacksdk, generic password", auth_type="password", auth=PASSWORD)
FAILURES += drive("openstacksdk, v2 password", auth_type="v2password", auth={
    "auth_url": BASE + "/identity/v2.0", "username": "alice", "password": "rabbit",
    "tenant_name": "wonderland"})
FAILURES += drive("openstacksdk, token", auth_type="token", auth={
    "auth_url": BASE + "/identity", "token": TOKEN, "project_name": "wonderland",
    "project_domain_name": "Default"})
FAILURES += look_around(auth_type="password", auth=dict(
    PASSWORD, username="root", password="toor-toor"))
sys.exit(1 if FAILURES else 0)
