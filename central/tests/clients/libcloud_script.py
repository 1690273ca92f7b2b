"""apache-libcloud: the compute drivers for 1.1 and 2.0, with what each can log in by."""

import sys

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

from steps import Steps, check, one, wait

BASE, TOKEN = sys.argv[1], sys.argv[2]
FAILURES = 0


def drive(title, driver, modern):
    """Everything a user does, once."""
    step = Steps(title)
    size = step("sizes", lambda: one([s for s in driver.list_sizes() if s.name == "tiny"], "tiny"))
    small = step("another size", lambda: one([s for s in driver.list_sizes() if s.name == "small"], "small"))
    image = step("images", lambda: one([i for i in driver.list_images() if i.name == "busybox"], "busybox"))
    step("image by id", lambda: check(driver.get_image(image.id).name == "busybox", "name"))
    network = step("networks", lambda: one([n for n in driver.ex_list_networks() if n.name == "bridged"], "bridged"))
    key = step("key pair made", lambda: driver.create_key_pair("lc"))
    step("key pair has a private key", lambda: check("PRIVATE KEY" in key.private_key, "no key"))
    step("key pairs", lambda: one([k for k in driver.list_key_pairs() if k.name == "lc"], "lc"))
    node = step("create", lambda: driver.create_node(
        name="lc-node", size=size, image=image, networks=[network],
        ex_keyname="lc", ex_metadata={"role": "test"},
        ex_userdata="#!/bin/sh\n", ex_files={"/etc/motd": "hello"}))
    if node is None:
        return step.failures
    step("password", lambda: check(node.extra["password"], "none"))

    def fresh():
        return one([n for n in driver.list_nodes() if n.id == node.id], "the node")

    def state(wanted):
        wait(wanted, lambda: fresh().state == wanted and not fresh().extra.get("task_state"))

    step("running", lambda: state(NodeState.RUNNING))
    step("addresses", lambda: check((fresh().public_ips + fresh().private_ips), "none"))
    step("details", lambda: check(driver.ex_get_node_details(node).name == "lc-node", "name"))
    step("metadata", lambda: check(driver.ex_get_metadata(node) == {"role": "test"}, "metadata"))
    step("metadata set", lambda: check(
        driver.ex_set_metadata(node, {"role": "other"}) == {"role": "other"}, "metadata"))
    step("rename", lambda: check(driver.ex_set_server_name(node, "lc-renamed"), "rename"))
    step("renamed", lambda: check(fresh().name == "lc-renamed", fresh().name))
    step("reboot", lambda: check(driver.reboot_node(node), "reboot"))
    step("running after the reboot", lambda: state(NodeState.RUNNING))
    step("hard reboot", lambda: check(driver.ex_hard_reboot_node(node), "reboot"))
    step("running after the hard reboot", lambda: state(NodeState.RUNNING))
    step("stop", lambda: check(driver.ex_stop_node(node), "stop"))
    step("stopped", lambda: state(NodeState.STOPPED))
    step("resize", lambda: check(driver.ex_resize(node, small), "resize"))
    step("stopped after the resize", lambda: state(NodeState.STOPPED))
    step("start", lambda: check(driver.ex_start_node(node), "start"))
    step("running again", lambda: state(NodeState.RUNNING))
    if modern:
        floating = step("floating IP", lambda: driver.ex_create_floating_ip("public"))
        step("floating IPs", lambda: one(driver.ex_list_floating_ips(), "floating"))
        step("attach", lambda: check(driver.ex_attach_floating_ip_to_node(node, floating), "attach"))
        step("running with it", lambda: state(NodeState.RUNNING))
        step("detach", lambda: check(driver.ex_detach_floating_ip_from_node(node, floating), "detach"))
        step("running without it", lambda: state(NodeState.RUNNING))
        step("delete the floating IP", lambda: check(driver.ex_delete_floating_ip(floating), "delete"))
        step("ports", lambda: check(driver.ex_list_ports(), "none"))
        volume = step("volumes", lambda: one(driver.list_volumes(), "the root disk"))
        step("volume by id", lambda: check(driver.ex_get_volume(volume.id).size == 1, "size"))
        made = step("make a network", lambda: driver.ex_create_network("lc-net"))
        subnet = step("make a subnet", lambda: driver.ex_create_subnet("lc-sub", made, "10.9.0.0/24"))
        step("subnets", lambda: one([s for s in driver.ex_list_subnets() if s.name == "lc-sub"], "lc-sub"))
        step("delete the subnet", lambda: check(driver.ex_delete_subnet(subnet), "delete"))
        step("delete the network", lambda: check(driver.ex_delete_network(made), "delete"))
        used = step("another network", lambda: driver.ex_create_network("lc-used"))
        port = step("make a port", lambda: driver.ex_create_port(used, name="lc-port"))
        step("rename the port", lambda: driver.ex_update_port(port, name="lc-other"))
        step("the name of the port", lambda: check(
            driver.ex_get_port(port.id).extra["name"] == "lc-other", "name"))
        step("attach the port", lambda: check(driver.ex_attach_port_interface(node, port), "attach"))
        step("running with the port", lambda: state(NodeState.RUNNING))
        step("detach the port", lambda: check(driver.ex_detach_port_interface(node, port), "detach"))
        step("running without the port", lambda: state(NodeState.RUNNING))
        step("delete it when unused", lambda: check(driver.ex_delete_network(used), "delete"))
    else:
        pool = step("pools", lambda: one(driver.ex_list_floating_ip_pools(), "pool"))
        floating = step("floating IP", lambda: driver.ex_create_floating_ip(pool.name))
        step("floating IPs", lambda: one(driver.ex_list_floating_ips(), "floating"))
        step("attach", lambda: check(driver.ex_attach_floating_ip_to_node(node, floating), "attach"))
        step("running with it", lambda: state(NodeState.RUNNING))
        step("detach", lambda: check(driver.ex_detach_floating_ip_from_node(node, floating), "detach"))
        step("running without it", lambda: state(NodeState.RUNNING))
        step("delete the floating IP", lambda: check(driver.ex_delete_floating_ip(floating), "delete"))
    step("destroy", lambda: check(driver.destroy_node(node), "destroy"))
    step("gone", lambda: wait("the end", lambda: node.id not in [n.id for n in driver.list_nodes()]))
    step("delete the key pair", lambda: check(driver.delete_key_pair(key), "delete"))
    return step.failures


def openstack(version, **more):
    """A driver."""
    more.setdefault("ex_tenant_name", "wonderland")
    return get_driver(Provider.OPENSTACK)("alice", "rabbit", api_version=version, **more)


FAILURES += drive("libcloud 1.1, v2 password", openstack(
    "1.1", ex_force_auth_url=BASE + "/identity", ex_force_auth_version="2.0_password"), False)
FAILURES += drive("libcloud 1.1, fixed token", openstack(
    "1.1", ex_force_base_url=BASE + "/compute/v1.1", ex_force_auth_url=BASE + "/identity",
    ex_force_auth_version="2.0_password", ex_force_auth_token=TOKEN), False)
FAILURES += drive("libcloud 2.0, v2 password", openstack(
    "2.0", ex_force_auth_url=BASE + "/identity", ex_force_auth_version="2.0_password"), True)
FAILURES += drive("libcloud 2.0, v3 password", openstack(
    "2.0", ex_force_auth_url=BASE + "/identity", ex_force_auth_version="3.x_password",
    ex_domain_name="Default"), True)
sys.exit(1 if FAILURES else 0)
