"""Nodes in network namespaces of their own, on a bridge that only this test sees, and cuts between them by direction.

A test script that uses it calls enter() first: it runs itself again inside a network and a mount namespace. Without root it
prints why it skips, and ends."""

import os
import pathlib
import shutil
import subprocess
import sys

ENTERED = "TOWLINE_IN_NAMESPACE"
NETWORK = "10.77.0"


def enter():
    """Returns inside the namespaces. Skips, exit code 0 with a notice, where they cannot be made."""
    if os.environ.get(ENTERED) == "1":
        pathlib.Path("/run/netns").mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "none", "/run/netns")  # the names are ours alone, too
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "towline0", "type", "bridge")
        _run("ip", "address", "add", f"{NETWORK}.1/24", "dev", "towline0")
        _run("ip", "link", "set", "towline0", "up")
        return
    missing = [program for program in ("ip", "nft", "unshare") if shutil.which(program) is None]
    unshare = ["unshare", "--net", "--mount"]
    if missing or os.geteuid() != 0 or subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        reason = f"without {', '.join(missing)}" if missing else "network namespaces need root here"
        print(f"SKIPPED: partitions between nodes: {reason}", flush=True)
        sys.exit(0)
    os.environ[ENTERED] = "1"
    os.execvp("unshare", [*unshare, sys.executable, "-B", *sys.argv])


def _run(*command, stdin=None):
    result = subprocess.run(command, input=stdin, text=True, capture_output=True)
    assert result.returncode == 0, f"{' '.join(command)}: exit code {result.returncode}: {result.stderr}"


class Cable:
    """The namespace of one node, its address, and what it does not hear or say. It goes with the test script's own."""

    made = 0

    def __init__(self):
        Cable.made += 1
        number = Cable.made
        self.name = f"towline-n{number}"
        self.address = f"{NETWORK}.{10 + number}"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", f"tl{number}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _run("ip", "link", "set", f"tl{number}", "master", "towline0", "up")
        for command in (["address", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                        ["link", "set", "lo", "up"]):
            _run("ip", "-n", self.name, *command)

    def command(self):
        """Runs what follows it in the namespace."""
        return ["ip", "netns", "exec", self.name]

    def cut(self, *others, hears=False, says=False):
        """From now on nothing of `others` arrives (unless hears), and nothing leaves for them (unless says)."""
        peers = "{ " + ", ".join(other.address for other in others) + " }"
        rules = ["table inet cut {"]
        if not hears:
            rules.append(f"chain i {{ type filter hook input priority 0; ip saddr {peers} drop; }}")
        if not says:
            rules.append(f"chain o {{ type filter hook output priority 0; ip daddr {peers} drop; }}")
        rules.append("}")
        _run(*self.command(), "nft", "-f", "-", stdin="\n".join(rules))

    def heal(self):
        _run(*self.command(), "nft", "delete", "table", "inet", "cut")
