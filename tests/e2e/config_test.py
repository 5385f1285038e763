#!/usr/bin/python3
"""What towlined refuses to start with, and how it says so."""

import json
import os
import pathlib
import shutil
import socket
import subprocess

import harness
from harness import Node, NodeTest
from workload import fill


class ConfigTest(NodeTest):
    def run_towlined(self, *arguments, environment=None):
        return subprocess.run([harness.TOWLINED, *map(str, arguments)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=30 * harness.SLOW,
                              env={**os.environ, **(environment or {})})

    def refused(self, expected_code, expected_text, *arguments, environment=None):
        result = self.run_towlined(*arguments, environment=environment)
        output = result.stdout + result.stderr
        self.assertEqual(result.returncode, expected_code, f"{arguments}: {output}")
        self.assertIn(expected_text, output, arguments)

    def base(self, role="primary"):
        ports = harness.free_ports(2)
        arguments = [role, "--data-dir", self.directory / "data", "--node-id", "n1", "--listen",
                     f"127.0.0.1:{ports[0]}", "--http", f"127.0.0.1:{ports[1]}"]
        return [*arguments, "--upstream", "127.0.0.1:1"] if role == "replica" else arguments

    def test_usage(self):
        self.assertEqual(self.run_towlined("--help").returncode, 0)
        self.assertEqual(self.run_towlined("primary", "--help").returncode, 0)
        self.assertIn("0.1.0", self.run_towlined("--version").stdout)
        for arguments, text in [
                ([], "subcommand"),
                (["witness"], "subcommand"),
                ([*self.base(), "--no-such-flag", "1"], "no-such-flag"),
                ([*self.base(), "--wal.segment_bytes", "67108864"], "wal.segment_bytes"),
                ([*self.base(), "--wal.segment_bytes", "64 parsecs"], "wal.segment_bytes"),
                ([*self.base(), "--slots.consumer_idle", "3600"], "slots.consumer_idle"),
                ([*self.base(), "--log.level", "loud"], "log.level"),
                ([*self.base(), "--slots.auto_create", "maybe"], "slots.auto_create"),
                ([*self.base(), "--node-id", "Big Node"], "node-id"),
                ([*self.base(), "--upstream", "127.0.0.1:1"], "upstream"),
                (self.base("replica")[:-2], "upstream"),
                ([*self.base(), "--listen", "7700"], "listen")]:
            self.refused(2, text, *arguments)
        self.assertFalse((self.directory / "data").exists(), "a refused start leaves nothing behind")

    def test_other_networks_need_insecure(self):
        ports = harness.free_ports(2)
        for flag in ("--listen", "--http"):
            self.refused(2, "--insecure", *self.base(), flag, f"0.0.0.0:{ports[0]}")
        node = self.primary(options={"insecure": ""})
        command = [*node.command()[:-2], "--insecure", "--listen", f"0.0.0.0:{node.grpc_port}"]
        node.command = lambda: command
        node.start()

    def test_file_and_environment(self):
        file = self.directory / "towline.toml"
        check = lambda text: (file.write_text(text), self.run_towlined("config", "check", file))[1]  # noqa: E731
        self.assertEqual(check('[wal]\nsegment_bytes = "1MiB"\n[slots]\nauto_create = false\n').returncode, 0)
        for text, complaint in [("[wal]\nsegment_bites = \"1MiB\"\n", "wal.segment_bites"), ("[wall]\nx = 1\n", "wall"),
                                ("[wal]\nsegment_bytes = 1048576\n", "wal.segment_bytes"), ("[wal\n", "towline.toml:1"),
                                ("data_dire = 'x'\n", "data_dire")]:
            result = check(text)
            self.assertEqual(result.returncode, 2, text)
            self.assertIn(complaint, result.stderr)
            self.refused(2, complaint, *self.base(), "--config", file)
        self.refused(2, "wal.keep_bytes", *self.base(), environment={"TOWLINE_WAL_KEEP_BYTES": "lots"})

        # Flag over environment over file: seen by the size of the segment file.
        def segment_size(flag, environment, toml):
            file.write_text(f"[wal]\nsegment_bytes = \"{toml}\"\n")
            node = self.primary(options={"config": file, **({"wal.segment_bytes": flag} if flag else {})},
                                environment={"TOWLINE_WAL_SEGMENT_BYTES": environment} if environment else {},
                                data_dir=self.directory / f"data-{flag}-{environment}-{toml}")
            node.start()
            sizes = {path.stat().st_size for path in node.data_dir.glob("gen/1/wal/*")}
            node.kill9()
            return max(sizes)

        self.assertEqual(segment_size(None, None, "1MiB"), 1 << 20)
        self.assertEqual(segment_size(None, "2MiB", "1MiB"), 2 << 20)
        self.assertEqual(segment_size("3MiB", "2MiB", "1MiB"), 3 << 20)

    def test_json_log(self):
        node = self.primary(options={"log.format": "json", "log.level": "debug"}).start()
        node.stop()
        events = [json.loads(line) for line in node.log().splitlines()[1:]]
        self.assertEqual({event["node"] for event in events}, {"p1"})
        for name in ("starting", "first_start", "recovered", "node_started", "node_stopped"):
            self.assertIn(name, [event["event"] for event in events])

    def test_ports_in_use(self):
        other = self.primary("other").start()
        for busy in (other.grpc_port, other.http_port):
            for flag in ("--listen", "--http"):
                result = self.run_towlined(*self.base(), flag, f"127.0.0.1:{busy}")
                self.assertEqual(result.returncode, 1, f"{flag} {busy}: {result.stderr}")
                self.assertIn(str(busy), result.stderr)
        with socket.socket() as holder:  # no SO_REUSEPORT here, in contrast to gRPC
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            for flag in ("--listen", "--http"):
                self.refused(1, str(holder.getsockname()[1]), *self.base(), flag,
                             f"127.0.0.1:{holder.getsockname()[1]}")
        self.assertEqual(other.status()["state"], "writable")


class DataDirectoryTest(NodeTest):
    def start_refused(self, node, code, text):
        node.launch()
        self.assertEqual(node.wait_exit(), code, node.log())
        self.assertIn(text, node.log())

    def test_unusable_directory(self):
        file = self.directory / "a-file"
        file.write_text("x")
        for data_dir in (file, file / "below", pathlib.Path("/proc/no/such/place")):
            self.start_refused(self.primary(data_dir=data_dir), 2, str(data_dir))

    def test_unreadable_directory(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to run towlined as somebody else")
        node = self.primary()
        node.data_dir.mkdir(mode=0o700)
        as_root = node.command()
        node.command = lambda: ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *as_root]
        self.start_refused(node, 2, str(node.data_dir))
        self.assertEqual(list(node.data_dir.iterdir()), [])

    def test_foreign_directory_is_left_alone(self):
        foreign = self.directory / "foreign"
        foreign.mkdir()
        (foreign / "thesis.tex").write_text("years of work")
        self.start_refused(self.primary(data_dir=foreign), 2, "thesis.tex")
        self.assertEqual([path.name for path in foreign.iterdir()], ["thesis.tex"])
        (foreign / "thesis.tex").unlink()
        (foreign / "lost+found").mkdir()
        self.primary(data_dir=foreign).start()

    def test_second_daemon_on_a_directory(self):
        p1 = self.primary().start()
        lsn = fill(p1, 10)
        self.start_refused(self.primary("p1", data_dir=p1.data_dir), 10, str(p1.data_dir))
        self.assertEqual(fill(p1, 10, prefix="more/"), lsn + 10)

    def test_wrong_node_id(self):
        p1 = self.primary().start()
        p1.stop()
        self.start_refused(self.primary("p2", data_dir=p1.data_dir), 2, "p1")

    def test_the_command_line_does_not_change_a_role(self):
        p1, r1 = self.cluster(replicas=1)
        fill(p1, 100)
        self.assert_same_data(p1, r1)
        cluster_id = p1.status()["cluster_id"]
        r1.stop()
        # The replica's directory under the command line of a primary is still a replica. It has no upstream then.
        as_primary = Node(self, "r1", "primary", data_dir=r1.data_dir).launch()
        if as_primary_answers(as_primary):
            status = as_primary.status()
            self.assertEqual((status["role"], status["cluster_id"]), ("replica", cluster_id))
            result = as_primary.towctl("put", "a", "b", check=False)
            self.assertEqual(result.returncode, 5, result.stderr)
            as_primary.stop()
        else:
            self.assertEqual(as_primary.process.returncode, 2, as_primary.log())
        r1.start()
        self.assert_same_data(p1, r1)
        # And the primary's directory under the command line of a replica is still the primary.
        p1.stop()
        as_replica = Node(self, "p1", "replica", "127.0.0.1:1", data_dir=p1.data_dir).launch()
        if as_primary_answers(as_replica):
            self.assertEqual(as_replica.status()["role"], "primary")
            as_replica.stop()
        else:
            self.assertEqual(as_replica.process.returncode, 2, as_replica.log())

    def test_damaged_control_beside_data_is_exit_11(self):
        p1 = self.primary().start()
        fill(p1, 10)
        p1.stop()
        saved = {name: (p1.data_dir / name).read_bytes() for name in ("control.a", "control.b")}
        (p1.data_dir / "control.a").write_bytes(b"\xff" * len(saved["control.a"]))
        p1.start()  # one good copy is enough
        p1.stop()
        for name, data in saved.items():
            (p1.data_dir / name).write_bytes(b"\xff" * len(data))
        self.start_refused(p1, 11, "control")
        for name in saved:
            (p1.data_dir / name).unlink()
        self.start_refused(p1, 11, "control")


def as_primary_answers(node):
    """True once it answers, False once it has exited."""
    def answered():
        if not node.running:
            return "exited"
        try:
            node.status()
            return "answers"
        except OSError:
            return None

    return harness.wait_until(answered, "an answer or an exit") == "answers"


class ForeignUpstreamTest(NodeTest):
    def test_another_cluster(self):
        p1, r1 = self.cluster(replicas=1)
        other = self.primary("other").start()
        fill(p1, 100)
        self.wait_caught_up(p1, r1)
        digest = r1.digest().digest
        r1.stop()
        stray = self.replica("r1", other, data_dir=r1.data_dir)
        stray.start("halted")
        status = stray.status()
        self.assertIn("cluster_mismatch", str(status["state_reason"]) + str(status["upstream"]))
        self.assertEqual(stray.digest().digest, digest)
        self.assertEqual(stray.http("/livez")[0], 200)
        self.assertEqual(other.status()["members"], [])
        self.assertGreaterEqual(other.status()["resync"]["refused_total"], 1)
        self.assertEqual(other.status()["wal"]["durable_lsn"], other.status()["store"]["applied_lsn"])
        stray.stop()
        shutil.rmtree(other.data_dir, ignore_errors=True)
        r1.start()
        self.assert_same_data(p1, r1)

    def test_itself(self):
        refused = self.replica("r1", None)
        refused.upstream = refused.endpoint
        refused.launch()
        self.assertEqual(refused.wait_exit(), 2, refused.log())
        # The same under another name is noticed by the protocol; the node stays up and says why it stands still.
        alias = self.replica("r1", None)
        alias.upstream = f"localhost:{alias.grpc_port}"
        alias.launch()
        status = alias.wait_state("halted")
        self.assertEqual(status["state_reason"], "self")
        self.assertIn("itself", status["upstream"]["message"])
        self.assertEqual(alias.http("/livez")[0], 200)


if __name__ == "__main__":
    harness.main()
