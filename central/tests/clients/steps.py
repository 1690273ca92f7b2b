"""What every client's script shares: steps with names, waiting with a deadline."""

import sys
import time
import traceback


class Steps:
    """Runs steps one after another and says of each whether it went well."""

    def __init__(self, title):
        self.title = title
        self.failures = 0

    def __call__(self, name, work):
        try:
            result = work()
        except Exception:  # whatever a client raises, the next step is still of interest
            self.failures += 1
            print("FAILED %s: %s" % (self.title, name))
            traceback.print_exc(file=sys.stdout)
            return None
        print("ok %s: %s" % (self.title, name))
        return result


def wait(what, condition, seconds=60):
    """Waits until condition() is true."""
    deadline = time.time() + seconds
    while not condition():
        if time.time() > deadline:
            raise RuntimeError("waited %s s for %s" % (seconds, what))
        time.sleep(0.2)


def check(condition, message):
    """An assertion that -O leaves in."""
    if not condition:
        raise RuntimeError(message)
    return True


def one(found, message):
    """The only one of a list."""
    found = list(found)
    check(len(found) == 1, "%s: %r" % (message, found))
    return found[0]
