"""openstacksdk against a cloud whose Ganeti and whose guests are real: one server's life.

Arguments: where the API is, a user, their password, their project.
"""

import sys

import openstack

from steps import Steps, check, one, wait

BASE, USER, PASSWORD, PROJECT = sys.argv[1:5]
STEP = Steps("openstacksdk on Ganeti")
# Guests are emulated, and the machine may be busy.
LONG = 400
CLOUD = openstack.connect(
    region_name="RegionOne", load_envvars=False, load_yaml_config=False,
    auth_type="password", auth={
        "auth_url": BASE + "/identity", "username": USER, "password": PASSWORD,
        "project_name": PROJECT, "user_domain_name": "Default", "project_domain_name": "Default"})
COMPUTE = CLOUD.compute


def status(wanted):
    """Waits for the server's status, and the end of what is done to it."""
    def now():
        found = COMPUTE.get_server(SERVER.id)
        check(found.status != "ERROR", "ERROR")
        return found.status == wanted and not found.task_state
    wait(wanted, now, LONG)


FLAVOR = STEP("flavor", lambda: COMPUTE.find_flavor("tiny", ignore_missing=False))
IMAGE = STEP("image", lambda: CLOUD.image.find_image("busybox", ignore_missing=False))
NETWORK = STEP("network", lambda: CLOUD.network.find_network("bridged", ignore_missing=False))
STEP("key pair", lambda: COMPUTE.create_keypair(name="life"))
SERVER = STEP("create", lambda: COMPUTE.create_server(
    name="life", image_id=IMAGE.id, flavor_id=FLAVOR.id, networks=[{"uuid": NETWORK.id}],
    key_name="life", metadata={"role": "test"}))
if SERVER is None:
    sys.exit(1)
STEP("active", lambda: status("ACTIVE"))
STEP("list", lambda: one([s for s in COMPUTE.servers() if s.id == SERVER.id], "server"))
STEP("addresses", lambda: check(len(COMPUTE.get_server(SERVER.id).addresses["bridged"]) == 2, "two"))
STEP("port", lambda: one(CLOUD.network.ports(device_id=SERVER.id), "port"))
STEP("rename", lambda: check(COMPUTE.update_server(SERVER, name="lives").name == "lives", "name"))
STEP("metadata", lambda: COMPUTE.set_server_metadata(SERVER, a="b"))
STEP("tag", lambda: SERVER.add_tag(COMPUTE, "blue"))
STEP("reboot", lambda: COMPUTE.reboot_server(SERVER, "HARD"))
STEP("active after the reboot", lambda: status("ACTIVE"))
STEP("a NIC more", lambda: COMPUTE.create_server_interface(SERVER, net_id=NETWORK.id))
STEP("active with it", lambda: status("ACTIVE"))
STEP("two NICs", lambda: check(len(list(COMPUTE.server_interfaces(SERVER))) == 2, "interfaces"))
STEP("stop", lambda: COMPUTE.stop_server(SERVER))
STEP("shut off", lambda: status("SHUTOFF"))
STEP("start", lambda: COMPUTE.start_server(SERVER))
STEP("active again", lambda: status("ACTIVE"))
STEP("delete", lambda: COMPUTE.delete_server(SERVER, ignore_missing=False))
STEP("gone", lambda: COMPUTE.wait_for_delete(SERVER, interval=1, wait=LONG))
STEP("delete the key pair", lambda: COMPUTE.delete_keypair("life", ignore_missing=False))
sys.exit(1 if STEP.failures else 0)
