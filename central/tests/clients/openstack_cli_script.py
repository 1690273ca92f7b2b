"""The openstack command, as people type it.

Most commands run in this process, since to load the program takes longer than what it does; some
run as the program.
"""

import contextlib
import io
import json
import os
import subprocess
import sys

from openstackclient.shell import OpenStackShell

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


def program(words, parse=True, **more):
    """One command in a process of its own; its JSON."""
    command = [PROGRAM] + words.split() + (["-f", "json"] if parse else [])
    done = subprocess.run(command, env=dict(ENVIRONMENT, **more), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError("%s: %s%s" % (words, done.stdout, done.stderr))
    return json.loads(done.stdout) if parse else None


def run(words, parse=True):
    """One command; its JSON."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = OpenStackShell().run(words.split() + (["-f", "json"] if parse else []))
    if status:
        raise RuntimeError("%s: %s%s" % (words, out.getvalue(), err.getvalue()))
    return json.loads(out.getvalue()) if parse and out.getvalue().strip() else None


def names(words):
    """The names in a list."""
    return [row["Name"] for row in run(words)]


def status(wanted):
    """Waits for the server's status."""
    def now():
        shown = run("server show " + NAME)
        return shown["status"] == wanted and not shown.get("OS-EXT-STS:task_state")
    wait(wanted, now, 120)


def as_administrator(words, parse=True):
    """One command of somebody else."""
    return program(words, parse, OS_USERNAME="root", OS_PASSWORD="toor-toor")


os.environ.update(ENVIRONMENT)
# Without a terminal, `image create` takes what it reads for an image.
sys.stdin = open(os.openpty()[1])
NAME = "cli-server"
DATA = os.path.join(os.environ["SCRATCH"], "user-data")
with open(DATA, "w") as data:
    data.write("#!/bin/sh\n")


STEP("token", lambda: check(program("token issue")["id"], "none"))
STEP("catalog", lambda: check(len(run("catalog list")) >= 4, "services"))
STEP("flavors", lambda: check("tiny" in names("flavor list"), "tiny"))
STEP("images", lambda: check("busybox" in names("image list"), "busybox"))
STEP("networks", lambda: check("bridged" in names("network list"), "bridged"))
STEP("subnets", lambda: check(run("subnet list"), "none"))
STEP("keypair", lambda: run("keypair create cli-key", parse=False))
STEP("keypairs", lambda: check("cli-key" in names("keypair list"), "cli-key"))
STEP("keypair by name", lambda: check(run("keypair show cli-key")["fingerprint"], "none"))
STEP("create", lambda: check(program(
    "server create --flavor tiny --image busybox --network bridged --key-name cli-key"
    " --property a=b --password correct-horse --user-data %s cli-server" % DATA)[
        "adminPass"] == "correct-horse", "password"))
STEP("active", lambda: status("ACTIVE"))
STEP("list", lambda: check("cli-server" in names("server list"), "cli-server"))
STEP("property", lambda: run("server set --property role=test cli-server", parse=False))
STEP("no property", lambda: run("server unset --property a cli-server", parse=False))
STEP("properties", lambda: check(
    run("server show cli-server")["properties"] == {"role": "test"}, "properties"))
STEP("rename", lambda: run("server set --name cli-renamed cli-server", parse=False))
NAME = "cli-renamed"
STEP("console", lambda: check("token=" in run("console url show --novnc " + NAME)["url"], "URL"))
STEP("stop", lambda: run("server stop cli-renamed", parse=False))
STEP("shut off", lambda: status("SHUTOFF"))
STEP("resize", lambda: run("server resize --flavor small cli-renamed", parse=False))
STEP("shut off after the resize", lambda: status("SHUTOFF"))
STEP("its flavor", lambda: check("small" in str(run("server show cli-renamed")["flavor"]), "flavor"))
STEP("start", lambda: run("server start cli-renamed", parse=False))
STEP("active again", lambda: status("ACTIVE"))
STEP("reboot", lambda: run("server reboot --hard cli-renamed", parse=False))
STEP("active after the reboot", lambda: status("ACTIVE"))
STEP("soft reboot", lambda: run("server reboot --soft cli-renamed", parse=False))
STEP("active after the soft reboot", lambda: status("ACTIVE"))
STEP("volumes", lambda: check(len(run("volume list")) == 1, "the root disk"))
STEP("disks", lambda: check(len(run("server volume list cli-renamed")) == 1, "the root disk"))
STEP("a fixed IP more", lambda: run("server add fixed ip cli-renamed bridged", parse=False))
STEP("active with it", lambda: status("ACTIVE"))
STEP("ports", lambda: check(run("port list --server cli-renamed"), "none"))
STEP("floating IP", lambda: run("floating ip create public"))
STEP("floating IPs", lambda: check(len(run("floating ip list")) == 1, "one"))
FLOATING = STEP("its address", lambda: run("floating ip list")[0]["Floating IP Address"])
STEP("attach it", lambda: run("server add floating ip cli-renamed " + FLOATING, parse=False))
STEP("active with the floating IP", lambda: status("ACTIVE"))
STEP("detach it", lambda: run("server remove floating ip cli-renamed " + FLOATING, parse=False))
STEP("active without the floating IP", lambda: status("ACTIVE"))
STEP("make a network", lambda: run("network create cli-net"))
STEP("make a subnet", lambda: run(
    "subnet create --network cli-net --subnet-range 10.9.0.0/24 cli-sub"))
STEP("delete the subnet", lambda: run("subnet delete cli-sub", parse=False))
STEP("delete the network", lambda: run("network delete cli-net", parse=False))
STEP("another network", lambda: run("network create cli-used"))
STEP("make a port", lambda: run("port create --network cli-used cli-port"))
STEP("plug it in", lambda: run("server add port cli-renamed cli-port", parse=False))
STEP("active when plugged in", lambda: status("ACTIVE"))
STEP("unplug it", lambda: run("server remove port cli-renamed cli-port", parse=False))
STEP("active when unplugged", lambda: status("ACTIVE"))
STEP("delete it when unused", lambda: run("network delete cli-used", parse=False))
STEP("release the floating IP", lambda: run(
    "floating ip delete " + run("floating ip list")[0]["ID"], parse=False))
STEP("register an image", lambda: run(
    "image create --disk-format raw --property source=https://images.example.org/c.img cli-image"))
STEP("forget the image", lambda: run("image delete cli-image", parse=False))
STEP("limits", lambda: check(run("limits show --absolute"), "none"))
STEP("zones", lambda: check(run("availability zone list --compute"), "none"))
STEP("hypervisors", lambda: check(len(as_administrator("hypervisor list")) == 1, "cluster"))
STEP("services", lambda: check(len(as_administrator("compute service list")) == 1, "cluster"))
STEP("make a member", lambda: as_administrator(
    "role add --project wonderland --user bob member", parse=False))
STEP("members", lambda: check(
    "bob@Default" in [row["User"] for row in as_administrator(
        "role assignment list --project wonderland --names")], "bob is no member"))
STEP("put a member out", lambda: as_administrator(
    "role remove --project wonderland --user bob member", parse=False))
STEP("set a limit", lambda: as_administrator("quota set --instances 50 wonderland", parse=False))
STEP("delete", lambda: run("server delete --wait cli-renamed", parse=False))
STEP("delete the keypair", lambda: run("keypair delete cli-key", parse=False))
sys.exit(1 if STEP.failures else 0)
