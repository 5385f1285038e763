#!/usr/bin/python3
"""Partitions around a primary and two replicas: on the other side somebody is promoted, then the network heals. What
replicas had confirmed is there, what only the old primary took is in its quarantine, and all nodes end with the same data."""

import namespaces

if __name__ == "__main__":
    namespaces.enter()

import http.client  # noqa: E402
import pathlib  # noqa: E402

import grpc  # noqa: E402
import harness  # noqa: E402
from harness import SLOW, Node, NodeTest, towctl  # noqa: E402
import towline_client  # noqa: E402
from towline.v1 import change_pb2, kv_service_pb2  # noqa: E402


class CabledNode(Node):
    """A node in a network namespace; the test reaches it over the bridge whatever is cut between nodes."""

    def __init__(self, test, *arguments, **options):
        self.cable = namespaces.Cable()
        super().__init__(test, *arguments, **options)

    @property
    def endpoint(self):
        return f"{self.cable.address}:{self.grpc_port}"

    def command(self):
        command = [part.replace("127.0.0.1", self.cable.address) for part in super().command()]
        return [*self.cable.command(), *command, "--insecure"]

    def http(self, path, method="GET"):
        connection = http.client.HTTPConnection(self.cable.address, self.http_port, timeout=10 * SLOW)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"bad HTTP answer: {error!r}") from error
        finally:
            connection.close()


def write(node, key, replicas=0, timeout_ms=1000):
    """None if it was acknowledged, else the reason."""
    request = kv_service_pb2.WriteRequest(
        operations=[change_pb2.Operation(put=change_pb2.Put(key=key.encode(), value=b"v"))],
        durability=kv_service_pb2.Durability(replicas=replicas, timeout_ms=timeout_ms))
    try:
        node.client.kv.Write(request, timeout=20 * SLOW)
        return None
    except grpc.RpcError as error:
        detail = towline_client.error_of(error)
        return detail.reason if detail else str(error.code())


class PartitionTest(NodeTest):
    """Every shape of a cut between n1, the primary, and the rest."""

    OPTIONS = {"start.peer_wait": "1s", "wal.segment_bytes": "1MiB", "slots.persist_interval": "100ms"}

    def members(self):
        n1 = CabledNode(self, "n1", "primary", options=self.OPTIONS).start()
        others = [CabledNode(self, f"n{i}", "replica", n1, options=self.OPTIONS).launch() for i in (2, 3)]
        for node in others:
            node.wait_state("streaming")
        for node in (n1, *others):
            self.wait_members(node, 3)
        return (n1, *others)

    def run_shape(self, cut):
        n1, n2, n3 = self.members()
        confirmed = []
        for i in range(50):
            self.assertIsNone(write(n1, f"before/{i}", replicas=1, timeout_ms=10_000))
            confirmed.append(f"before/{i}")
        cut(n1.cable, n2.cable, n3.cable)
        alone = [f"alone/{i}" for i in range(20)]
        for key in alone:
            self.assertIsNone(write(n1, key), "level local goes on")
        towctl("--endpoint", n2.endpoint, "promote", "n2")
        n2.wait_state("writable")
        self.assertIsNotNone(write(n1, "late", replicas=1), "a replicated write at the isolated primary")
        for i in range(50):
            self.assertIsNone(write(n2, f"after/{i}", replicas=1, timeout_ms=10_000))
            confirmed.append(f"after/{i}")
        n1.cable.heal()
        n1.wait(lambda status: status["role"] == "replica" and status["state"] == "streaming", "follows n2", timeout=60)
        n3.wait(lambda status: status["state"] == "streaming" and status["term"] == n2.status()["term"], "follows n2")
        self.assert_same_data(n2, n1, n3)
        for node in (n1, n2, n3):
            keys = {entry.key.decode() for entry in node.client.scan()}
            self.assertEqual(set(confirmed) - keys, set(), f"lost on {node.node_id}")
            self.assertEqual({key for key in keys if key.startswith(("alone/", "late"))} - self.shipped(n1, keys), set())
            self.assertEqual(node.status()["history"], n2.status()["history"])
        self.check_quarantine(n1, alone)

    def shipped(self, node, keys):
        """What the old primary wrote after the cut and could still ship: its way out was open."""
        return {key for key in keys if key.startswith("alone/")} if self.way_out else set()

    def check_quarantine(self, node, alone):
        files = sorted(pathlib.Path(node.data_dir / "quarantine").glob("diverged-*"))
        if not files:
            self.assertTrue(self.way_out, "nothing was given up, though nothing could leave")
            return
        dumped = towctl("wal", "dump", "--data-dir", node.data_dir, "--quarantine").stdout
        held = {entry.key.decode() for entry in node.client.scan()}
        for key in alone:
            self.assertTrue(key in held or key in dumped, f"{key} is neither in the state nor in quarantine")

    way_out = False

    def test_full(self):
        self.run_shape(lambda n1, n2, n3: n1.cut(n2, n3))

    def test_nothing_arrives_at_the_primary(self):
        self.way_out = True
        self.run_shape(lambda n1, n2, n3: n1.cut(n2, n3, says=True))

    def test_nothing_leaves_the_primary(self):
        self.run_shape(lambda n1, n2, n3: n1.cut(n2, n3, hears=True))

    def test_partial(self):
        self.way_out = True  # to n3, until that is fenced
        self.run_shape(lambda n1, n2, n3: n1.cut(n2))


if __name__ == "__main__":
    harness.main()
