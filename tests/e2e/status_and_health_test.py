#!/usr/bin/python3
"""What operators and their tools read: status, metrics, health, reflection."""

import json
import re
import subprocess
import threading

import grpc
import harness
import health_service_pb2
import health_service_pb2_grpc
import reflection_service_pb2
import reflection_service_pb2_grpc
from google.protobuf import descriptor_pb2
from harness import NodeTest, wait_until
from workload import fill

# docs/guides/operating.md, "Status": the fields that tools may rely on.
STATUS_FIELDS = {"cluster_id", "node_id", "role", "state", "exact", "term", "history", "members", "wal", "store",
                 "upstream", "replicas", "consumers", "slots", "resync", "disk"}
WAL_FIELDS = {"first_lsn", "durable_lsn", "committed_lsn", "retained_bytes", "segments"}
REPLICA_FIELDS = {"node_id", "slot", "state", "sent_lsn", "received_lsn", "flushed_lsn", "applied_lsn", "lag_records",
                  "lag_bytes", "lag_seconds", "stages"}
SLOT_FIELDS = {"name", "kind", "state", "health", "generation", "confirmed_lsn", "retained_bytes", "headroom_bytes",
               "headroom_seconds", "invalidation"}
RESYNC_FIELDS = {"partial_total", "full_total", "rewind_total", "refused_total", "by_reason", "consumers_by_reason",
                 "invalidations", "superseded_sessions", "stalls"}
SERVICES = ["towline.v1.KvService", "towline.v1.ReplicationService", "towline.v1.SlotService",
            "towline.v1.AdminService"]


class StatusTest(NodeTest):
    def setUp(self):
        self.p1, self.r1 = self.cluster(replicas=1)
        fill(self.p1, 500)
        self.wait_caught_up(self.p1, self.r1)

    def assert_fields(self, document, fields, where):
        self.assertEqual(fields - document.keys(), set(), f"missing in {where}")

    def test_status_of_both_roles_has_every_field(self):
        for node in (self.p1, self.r1):
            status = node.towctl_json("status")
            self.assert_fields(status, STATUS_FIELDS, node.node_id)
            self.assert_fields(status["wal"], WAL_FIELDS, "wal")
            self.assert_fields(status["store"], {"applied_lsn", "persisted_lsn"}, "store")
            self.assert_fields(status["resync"], RESYNC_FIELDS, "resync")
            self.assertIsInstance(status["resync"]["by_reason"], dict)
            self.assertEqual(status["node_id"], node.node_id)
            self.assertEqual(status["role"], node.role)
            self.assertIs(status["exact"], True)
            self.assertEqual(status["term"], 1)
            self.assertEqual([(entry["term"], entry["start_lsn"]) for entry in status["history"]], [(1, 1)])
            self.assertRegex(status["cluster_id"], "^[0-9a-f]{24}$")
            self.assertIsInstance(status["wal"]["durable_lsn"], int)
            self.assertEqual(status.keys() - {"token"}, node.status().keys(), "HTTP and towctl differ")

        status = self.p1.wait(lambda status: status["replicas"] and status["replicas"][0]["lag_records"] == 0
                              and status["replicas"][0]["lag_seconds"] == 0 and len(status["members"]) == 2, "no lag")
        self.assertEqual(status["state"], "writable")
        self.assertIsNone(status["upstream"])
        self.assertEqual([member["node_id"] for member in status["members"]], ["p1", "r1"])
        (replica,) = status["replicas"]
        self.assert_fields(replica, REPLICA_FIELDS, "replicas[0]")
        self.assertEqual((replica["node_id"], replica["slot"], replica["state"]), ("r1", "r1", "streaming"))
        self.assertEqual(replica["applied_lsn"], status["wal"]["durable_lsn"])
        (slot,) = status["slots"]
        self.assert_fields(slot, SLOT_FIELDS, "slots[0]")
        self.assertEqual((slot["name"], slot["kind"], slot["state"], slot["health"], slot["invalidation"]),
                         ("r1", "replica", "active", "reserved", None))
        self.assertEqual(status["resync"]["partial_total"], 1)
        self.assertEqual(status["resync"]["by_reason"], {"partial/new_replica": 1})

        status = self.r1.status()
        self.assertEqual(status["upstream"]["endpoint"], self.p1.endpoint)
        self.assertEqual(status["upstream"]["state"], "streaming")
        self.assertEqual(status["replicas"], [])
        self.assertEqual(status["slots"], [])

    def test_tables_for_people(self):
        for arguments in (["status"], ["topology"], ["history"], ["digest"], ["slot", "list"], ["slot", "get", "r1"],
                          ["slot", "explain", "r1"], ["ping"]):
            output = self.p1.towctl(*arguments).stdout
            self.assertTrue(output.strip(), arguments)
        self.assertEqual(self.p1.towctl_json("digest")["digest"], self.r1.towctl_json("digest")["digest"])
        self.assertEqual(self.p1.towctl_json("topology")["primary_node_id"], "p1")

    def test_lag_shows_while_a_replica_stands_still(self):
        self.r1.pause()
        lsn = fill(self.p1, 2000, prefix="lag/")
        replica = self.p1.wait(lambda status: status["replicas"][0]["lag_records"] >= 2000
                               and (status["replicas"][0]["lag_seconds"] or 0) > 0.5, "lag")["replicas"][0]
        self.assertGreater(replica["lag_bytes"], 2000 * 500)
        self.assertLess(replica["applied_lsn"], lsn)
        self.r1.resume()
        self.p1.wait(lambda status: status["replicas"][0]["lag_records"] == 0
                     and status["replicas"][0]["lag_seconds"] == 0, "the lag goes away")
        self.assertEqual(self.p1.status()["resync"]["full_total"], 0)


    def test_a_replica_without_progress_is_stalled(self):
        p1 = self.primary("p2", options={"replication.stall_timeout": "500ms"}).start()
        r1 = self.replica("r2", p1).start()
        r1.pause()
        fill(p1, 100)
        status = p1.wait(lambda status: status["replicas"][0]["state"] == "stalled", "stalled")
        self.assertGreater(status["replicas"][0]["lag_seconds"], 0)
        self.assertIn('towline_replication_stalled{replica="r2"} 1', p1.http("/metrics")[1])
        r1.resume()
        p1.wait(lambda status: status["replicas"][0]["state"] == "streaming", "streaming again")

    def test_check(self):
        self.p1.towctl("status", "--check", "--max-lag-records", "100000")
        self.r1.pause()
        fill(self.p1, 500, prefix="lag/")
        result = self.p1.towctl("status", "--check", "--max-lag-records", "400", check=False)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("r1", result.stderr)
        self.r1.resume()


class HttpTest(NodeTest):
    def test_health_pages_and_metrics(self):
        p1, r1 = self.cluster(replicas=1)
        fill(p1, 200)
        self.wait_caught_up(p1, r1)
        expected = {"/livez": (200, 200), "/readyz": (200, 200), "/primary": (200, 503), "/replica": (503, 200),
                    "/replica?lag=16MiB&lag_time=5s": (503, 200), "/status": (200, 200), "/metrics": (200, 200),
                    "/no-such-page": (404, 404)}
        for path, codes in expected.items():
            for node, code in zip((p1, r1), codes):
                self.assertEqual(node.http(path)[0], code, f"{node.node_id} {path}: {node.http(path)}")
        for node in (p1, r1):
            self.assertEqual(json.loads(node.http("/status")[1])["node_id"], node.node_id)
            metrics = node.http("/metrics")[1]
            checked = subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True, capture_output=True)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
            names = {line.split("{")[0].split(" ")[0] for line in metrics.splitlines() if not line.startswith("#")}
            self.assertGreater(len(names), 10)
            self.assertEqual([name for name in names if not name.startswith("towline_")], [])
        self.check_rules_know_metrics("".join(node.http("/metrics")[1] for node in (p1, r1)))

    def check_rules_know_metrics(self, metrics):
        """Every metric in an alert's expression is one that a primary or a replica has, so that no alert is silent for
        ever."""
        declared = set(re.findall(r"^# TYPE (\S+)", metrics, re.MULTILINE))
        rules = (harness.SOURCE / "deploy/prometheus/towline.rules.yml").read_text()
        expressions = re.findall(r"expr: (.*?)\n +(?:for|labels):", rules, re.DOTALL)
        self.assertEqual(len(expressions), rules.count("- alert:"))
        for expression in expressions:
            for name in re.findall(r"towline_[a-z_]+", expression):
                if not name.startswith("towline_drill_"):  # of the textfile that towctl drill writes
                    self.assertIn(name, declared)

    def test_a_replica_without_upstream_is_alive_and_says_so(self):
        p1, r1 = self.cluster(replicas=1)
        p1.kill9()
        r1.wait_state("disconnected")
        self.assertEqual((r1.http("/livez")[0], r1.http("/readyz")[0], r1.http("/replica")[0]), (200, 200, 503))
        p1.start()
        r1.wait_state("streaming")
        wait_until(lambda: r1.http("/replica?lag=16MiB&lag_time=5s")[0] == 200, "the replica is fit again")

    def test_bounds_on_the_lag(self):
        p1, r1 = self.cluster(replicas=1)
        for query in ("lag=16", "lag=x", "lag_time=5"):
            self.assertEqual(r1.http(f"/replica?{query}")[0], 400, query)
        p1.pause()  # nothing more arrives, and nothing says so
        wait_until(lambda: r1.http("/replica?lag_time=1s")[0] == 503, "the lag in time is over the bound", timeout=10)
        p1.resume()
        wait_until(lambda: r1.http("/replica?lag=1KiB&lag_time=1s")[0] == 200, "the replica is fit again", timeout=10)


class GrpcHealthTest(NodeTest):
    def test_health_follows_the_role(self):
        p1, r1 = self.cluster(replicas=1)
        serving = health_service_pb2.HealthCheckResponse.SERVING
        for node in (p1, r1):
            with grpc.insecure_channel(node.endpoint) as channel:
                stub = health_service_pb2_grpc.HealthStub(channel)
                for service in ("", *SERVICES):
                    request = health_service_pb2.HealthCheckRequest(service=service)
                    wait_until(lambda: stub.Check(request, timeout=10).status == serving,
                               f"{node.node_id} serves {service!r}", timeout=5)
                with self.assertRaises(grpc.RpcError) as unknown:
                    stub.Check(health_service_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
                self.assertEqual(unknown.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_a_watcher_hears_of_the_end(self):
        p1 = self.primary().start()
        status = health_service_pb2.HealthCheckResponse
        with grpc.insecure_channel(p1.endpoint) as channel:
            stub = health_service_pb2_grpc.HealthStub(channel)
            known = stub.Watch(health_service_pb2.HealthCheckRequest(), timeout=30)
            unknown = stub.Watch(health_service_pb2.HealthCheckRequest(service="no.such.Service"), timeout=30)
            self.assertEqual(next(known).status, status.SERVING)
            self.assertEqual(next(unknown).status, status.SERVICE_UNKNOWN)
            stopping = threading.Thread(target=p1.stop)
            stopping.start()
            self.assertEqual(next(known).status, status.NOT_SERVING)
            with self.assertRaises(grpc.RpcError):
                next(unknown)
            stopping.join()

    def test_reflection_describes_the_api(self):
        p1 = self.primary().start()
        with grpc.insecure_channel(p1.endpoint) as channel:
            stub = reflection_service_pb2_grpc.ServerReflectionStub(channel)
            requests = [reflection_service_pb2.ServerReflectionRequest(list_services=""),
                        reflection_service_pb2.ServerReflectionRequest(file_containing_symbol="towline.v1.KvService")]
            requests.append(reflection_service_pb2.ServerReflectionRequest(file_by_filename="no/such.proto"))
            listed, described, refused = stub.ServerReflectionInfo(iter(requests), timeout=10)
            names = {service.name for service in listed.list_services_response.service}
            self.assertEqual({*SERVICES, "grpc.health.v1.Health"} - names, set())
            files = [descriptor_pb2.FileDescriptorProto.FromString(data)
                     for data in described.file_descriptor_response.file_descriptor_proto]
            self.assertEqual(files[0].name, "towline/v1/kv_service.proto")
            self.assertEqual({name for file in files for name in file.dependency} - {file.name for file in files}, set())
            self.assertEqual(refused.error_response.error_code, grpc.StatusCode.NOT_FOUND.value[0])


if __name__ == "__main__":
    harness.main()
