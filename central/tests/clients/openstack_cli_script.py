"""The openstack command, as people type it."""

import json
import os
import subprocess
import sys

from steps import Steps, check, wait

BASE = sys.argv[1]
STEP = Steps("openstack CLI")
PROGRAM = os.path.join(os.path.dirname(sys.executable), "openstack")
ENVIRONMENT = {
    "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
    "OS_AUTH_URL": BASE + "/identity", "OS_AUTH_TYPE": "password",
    "OS_USERNAME": "alice", "OS_PASSWORD": "rabbit", "OS_PROJECT_NAME": "wonderland",
    "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
}


def run(words, parse=True):
    """One command; its JSON."""
    command = [PROGRAM] + words.split() + (["-f", "json"] if parse else [])
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError("%s: %s%s" % (words, done.stdout, done.stderr))
    return json.loads(done.stdout) if parse and done.stdout.strip() else None


def names(words):
    """The names in a list."""
    return [row["Name"] for row in run(words)]


def status(wanted):
    """Waits for the server's status."""
    def now():
        shown = run("server show cli-server")
        return shown["status"] == wanted and not shown.get("OS-EXT-STS:task_state")
    wait(wanted, now, 120)


STEP("token", lambda: check(run("token issue")["id"], "none"))
STEP("catalog", lambda: check(len(run("catalog list")) >= 4, "services"))
STEP("flavors", lambda: check("tiny" in names("flavor list"), "tiny"))
STEP("images", lambda: check("busybox" in names("image list"), "busybox"))
STEP("networks", lambda: check("bridged" in names("network list"), "bridged"))
STEP("subnets", lambda: check(run("subnet list"), "none"))
STEP("keypair", lambda: run("keypair create cli-key", parse=False))
STEP("keypairs", lambda: check("cli-key" in names("keypair list"), "cli-key"))
STEP("create", lambda: run(
    "server create --flavor tiny --image busybox --network bridged --key-name cli-key cli-server"))
STEP("active", lambda: status("ACTIVE"))
STEP("list", lambda: check("cli-server" in names("server list"), "cli-server"))
STEP("property", lambda: run("server set --property role=test cli-server", parse=False))
STEP("stop", lambda: run("server stop cli-server", parse=False))
STEP("shut off", lambda: status("SHUTOFF"))
STEP("start", lambda: run("server start cli-server", parse=False))
STEP("active again", lambda: status("ACTIVE"))
STEP("reboot", lambda: run("server reboot --hard cli-server", parse=False))
STEP("active after the reboot", lambda: status("ACTIVE"))
STEP("ports", lambda: check(run("port list --server cli-server"), "none"))
STEP("floating IP", lambda: run("floating ip create public"))
STEP("floating IPs", lambda: check(len(run("floating ip list")) == 1, "one"))
STEP("make a network", lambda: run("network create cli-net"))
STEP("make a subnet", lambda: run(
    "subnet create --network cli-net --subnet-range 10.9.0.0/24 cli-sub"))
STEP("delete the subnet", lambda: run("subnet delete cli-sub", parse=False))
STEP("delete the network", lambda: run("network delete cli-net", parse=False))
STEP("release the floating IP", lambda: run(
    "floating ip delete " + run("floating ip list")[0]["ID"], parse=False))
STEP("delete", lambda: run("server delete --wait cli-server", parse=False))
STEP("delete the keypair", lambda: run("keypair delete cli-key", parse=False))
sys.exit(1 if STEP.failures else 0)
