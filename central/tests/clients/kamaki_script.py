"""kamaki, the client of Cyclades, under the Python 2.7 that it needs."""

import json
import os
import subprocess
import sys

from steps import Steps, check, wait

BASE, TOKEN = sys.argv[1], sys.argv[2]
STEP = Steps("kamaki")
FOLDER = os.environ["PYTHONPATH"]
CONFIG = os.path.join(os.environ["SCRATCH"], "kamakirc")
with open(CONFIG, "w") as rc:
    rc.write("[global]\ndefault_cloud = test\nignore_ssl = on\n[cloud \"test\"]\n"
             "url = %s/cyclades/identity/v2.0\ntoken = %s\n" % (BASE, TOKEN))


def run(words, parse=True):
    """One command; its JSON."""
    command = [sys.executable, os.path.join(FOLDER, "bin", "kamaki"), "-c", CONFIG] + words.split()
    if parse:
        command += ["--output-format=json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate()
    if child.returncode:
        raise RuntimeError("%s: %s%s" % (words, out, err))
    return json.loads(out) if parse and out.strip() else None


def named(rows, name):
    """The one of that name."""
    found = [row for row in rows if row.get("name") == name]
    check(len(found) == 1, "%s in %r" % (name, rows))
    return found[0]


def status(wanted):
    """Waits for the server's status."""
    def now():
        shown = run("server info %s" % SERVER["id"])
        return shown["status"] == wanted and not shown.get("SNF:task_state")
    wait(wanted, now)


STEP("authenticate", lambda: run("user authenticate"))
FLAVOR = STEP("flavors", lambda: named(run("flavor list"), "tiny"))
IMAGE = STEP("images", lambda: named(run("imagecompute list"), "busybox"))
STEP("plankton images", lambda: named(run("image list"), "busybox"))
NETWORK = STEP("networks", lambda: named(run("network list"), "bridged"))
STEP("subnets", lambda: check(run("subnet list"), "none"))
SERVER = STEP("create", lambda: run("server create --name=kamaki --flavor-id=%s --image-id=%s --network=%s" % (
    FLAVOR["id"], IMAGE["id"], NETWORK["id"])))
if SERVER is None:
    sys.exit(1)
STEP("active", lambda: status("ACTIVE"))
STEP("list", lambda: named(run("server list"), "kamaki"))
STEP("detailed list", lambda: run("server list --detail", parse=False))
STEP("rename", lambda: run("server modify %s --name=renamed" % SERVER["id"], parse=False))
STEP("metadata", lambda: run("server modify %s --metadata-set=a=b" % SERVER["id"], parse=False))
STEP("ports", lambda: check(run("port list"), "none"))
STEP("reboot", lambda: run("server reboot %s" % SERVER["id"], parse=False))
STEP("active after the reboot", lambda: status("ACTIVE"))
STEP("shutdown", lambda: run("server shutdown %s" % SERVER["id"], parse=False))
STEP("stopped", lambda: status("STOPPED"))
STEP("start", lambda: run("server start %s" % SERVER["id"], parse=False))
STEP("active again", lambda: status("ACTIVE"))
ADDRESS = STEP("ip create", lambda: run("ip create"))
STEP("ip list", lambda: check(len(run("ip list")) == 1, "one"))
STEP("ip delete", lambda: run("ip delete %s" % ADDRESS["id"], parse=False))
MADE = STEP("network create", lambda: run("network create --name=kamaki-net"))
STEP("subnet create", lambda: run("subnet create --network-id=%s --cidr=10.9.0.0/24" % MADE["id"]))
STEP("network delete", lambda: run("network delete %s" % MADE["id"], parse=False))
STEP("delete", lambda: run("server delete %s --wait" % SERVER["id"], parse=False))
sys.exit(1 if STEP.failures else 0)
