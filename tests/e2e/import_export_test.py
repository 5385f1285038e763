#!/usr/bin/python3
"""towctl import and export: round trips, bad lines, checkpoints, interrupts, a primary that dies."""

import base64
import json
import signal
import subprocess
import threading

import harness
import towline_client
from harness import NodeTest, repetitions, wait_until
from workload import fill


def line(key, value):
    return json.dumps({"key": key, "value": value}) + "\n"


class ImportTest(NodeTest):
    def setUp(self):
        self.p1 = self.primary().start()

    def import_json(self, *arguments, check=False, **options):
        """(exit code, summary) of an import."""
        result = self.p1.towctl("import", "-o", "json", *arguments, check=check, **options)
        return result.returncode, json.loads(result.stdout), result.stderr

    def write_file(self, count, name="input.jsonl", value="x" * 100):
        path = self.directory / name
        with open(path, "w", encoding="utf-8") as file:
            for index in range(count):
                file.write(line(f"line/{index + 1:07d}", f"{index + 1}:{value}"))
        return path

    def assert_lines(self, node, count):
        """Lines 1..count are there."""
        keys = {int(entry.key[5:]) for entry in node.client.scan(b"line/")}
        missing = set(range(1, count + 1)) - keys
        self.assertEqual(sorted(missing)[:5], [], f"{node.node_id} lacks {len(missing)} of {count} acknowledged lines")
        return keys

    def test_round_trip(self):
        client = self.p1.client
        client.write(towline_client.put(bytes(range(256)), b"\x00\xff"), towline_client.put(b"empty", b""),
                     towline_client.put("schlüssel".encode(), "wert ✓ \"\\\n\t".encode()))
        client.write(towline_client.put(b"expires", b"1", ttl_ms=3_600_000))
        fill(self.p1, 3000)
        digest = self.p1.digest()
        path = self.directory / "export.jsonl"
        result = self.p1.towctl("export", path)
        self.assertIn("3004", result.stderr)
        self.assertEqual(len(path.read_text().splitlines()), 3004)
        self.assertEqual(self.p1.towctl("export").stdout, path.read_text())

        other = self.primary("other").start()
        other.towctl("import", path)
        self.assertEqual(other.digest().keys, digest.keys)
        self.assertEqual(other.towctl("export").stdout, path.read_text())
        for key in (bytes(range(256)), b"empty", "schlüssel".encode(), b"fill/00000007"):
            self.assertEqual(other.client.get(key), client.get(key))

    def test_bad_lines_are_reported_and_skipped(self):
        text = "".join([
            line("a", "1"), "not json\n", "\n", '{"key":"b"}\n', '{"key":"c","value":"3","colour":"red"}\n',
            '{"key":"","value":"x"}\n', '{"key":"d","value":"4"\n', '{"key_base64":"?","value":"x"}\n', '["e"]\n',
            json.dumps({"key_base64": base64.b64encode(b"\xff\x00").decode(), "value": "bin"}) + "\n",
            line("k" * 65537, "x"), line("big", "v" * (9 << 20)), '{"key":"f","value":5}\n', line("g", "7").rstrip()])
        code, summary, stderr = self.import_json("-", stdin=text)
        self.assertEqual(code, 1)
        self.assertEqual((summary["ended"], summary["acked"], summary["rejected"], summary["unanswered"]),
                         ("end_of_input", 3, 10, 0), stderr)
        self.assertEqual(summary["last_acked_line"], 14)
        reported = [int(report.split(":")[0].split()[1]) for report in stderr.splitlines() if report.startswith("line ")]
        self.assertEqual(sorted(reported), [2, 4, 5, 6, 7, 8, 9, 11, 12, 13])
        self.assertEqual(sorted(entry.key for entry in self.p1.client.scan()), [b"a", b"g", b"\xff\x00"])

    def test_unusable_input(self):
        for arguments in (["/no/such/file"], [self.directory], ["-", "--format", "xml"]):
            result = self.p1.towctl("import", *arguments, check=False)
            self.assertIn(result.returncode, (1, 2), arguments)
            self.assertTrue(result.stderr, arguments)
        self.p1.stop()
        result = self.p1.towctl("import", "-", stdin=line("a", "1"), check=False)
        self.assertEqual(result.returncode, 1)

    def test_checkpoint_goes_on_after_an_interrupt(self):
        path = self.write_file(60_000)
        checkpoint = self.directory / "ckpt"
        acked = 0
        for run in range(repetitions(3, 8)):
            process = subprocess.Popen([harness.TOWCTL, "--endpoint", self.p1.endpoint, "import", path, "--checkpoint",
                                        checkpoint, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True)
            before = self.p1.status()["wal"]["durable_lsn"]
            self.p1.wait(lambda status: status["wal"]["durable_lsn"] > before + 500 or process.poll() is not None,
                         "the import is under way")
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30 * harness.SLOW)
            summary = json.loads(stdout)
            self.assertEqual(summary["resumed_behind_line"], acked, stderr)
            acked = summary["last_acked_line"]
            if summary["ended"] == "end_of_input":
                break
            self.assertEqual((summary["ended"], process.returncode, summary["unanswered"]), ("interrupted", 1, 0),
                             stderr)
            self.assert_lines(self.p1, acked)
        code, summary, stderr = self.import_json(path, "--checkpoint", checkpoint)
        self.assertEqual((code, summary["ended"], summary["last_acked_line"]), (0, "end_of_input", 60_000), stderr)
        self.assert_lines(self.p1, 60_000)
        # One record for the start of the term, and one per line: nothing was written twice.
        self.assertEqual(self.p1.status()["wal"]["durable_lsn"], 60_001)
        other = self.write_file(5, "other.jsonl")
        result = self.p1.towctl("import", other, "--checkpoint", checkpoint, check=False)
        self.assertEqual(result.returncode, 4)
        self.assertIn("checkpoint_of_another_file", result.stderr)

    def test_kill_of_the_primary(self):
        """The import fails, says what was acknowledged, and goes on from its checkpoint."""
        r1 = self.replica("r1", self.p1).start()
        lines = repetitions(200_000, 1_000_000)
        path = self.write_file(lines)
        checkpoint = self.directory / "ckpt"
        behind = 0
        for run in range(repetitions(4)):
            process = subprocess.Popen([harness.TOWCTL, "--endpoint", self.p1.endpoint, "import", path, "--checkpoint",
                                        checkpoint, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True)
            target = self.p1.status()["wal"]["durable_lsn"] + self.random.randrange(1, 20_000)
            self.p1.wait(lambda status: status["wal"]["durable_lsn"] >= target or process.poll() is not None,
                         "the import is under way")
            self.p1.kill9()
            stdout, stderr = process.communicate(timeout=30 * harness.SLOW)
            summary = json.loads(stdout)
            if run % 2 == 1:  # once more, while it recovers
                self.p1.launch()
                harness.time.sleep(self.random.uniform(0, 0.15))
                self.p1.kill9()
            self.p1.start()
            self.assertGreaterEqual(summary["last_acked_line"], behind)
            behind = summary["last_acked_line"]
            self.assert_lines(self.p1, behind)
        code, summary, stderr = self.import_json(path, "--checkpoint", checkpoint)
        self.assertEqual((code, summary["ended"], summary["last_acked_line"]), (0, "end_of_input", lines), stderr)
        r1.wait_state("streaming")
        digest = self.assert_same_data(self.p1, r1)
        self.assertEqual(digest.keys, lines)
        self.assert_lines(r1, lines)

    def test_retry_bridges_kills_of_the_primary(self):
        lines = repetitions(20_000, 200_000)
        process = subprocess.Popen([harness.TOWCTL, "--endpoint", self.p1.endpoint, "import", "-", "--retry-for", "60s",
                                    "-o", "json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        kills = repetitions(3, 10)
        gates = [threading.Event() for _ in range(kills)]

        def feed():
            for index in range(lines):
                part = index // (lines // (kills + 1))
                if index % (lines // (kills + 1)) == 0 and 0 < part <= kills:
                    process.stdin.flush()
                    gates[part - 1].wait(60 * harness.SLOW)
                process.stdin.write(line(f"line/{index + 1:07d}", "x" * 50))
            process.stdin.close()

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        for gate in gates:
            before = self.p1.status()["wal"]["durable_lsn"]
            gate.set()
            self.p1.wait(lambda status: status["wal"]["durable_lsn"] > before, "progress")
            self.p1.kill9()
            self.p1.start()
        wait_until(lambda: process.poll() is not None, "the import ends", timeout=60)
        feeder.join()
        summary = json.loads(process.stdout.read())
        errors = process.stderr.read()
        process.stdout.close(), process.stderr.close()
        self.assertEqual((process.returncode, summary["ended"], summary["acked"]), (0, "end_of_input", lines), errors)
        self.assertEqual(self.assert_lines(self.p1, lines), set(range(1, lines + 1)))
        # Request ids: a line that was sent twice was written once.
        self.assertEqual(self.p1.status()["wal"]["durable_lsn"], lines + 1)


if __name__ == "__main__":
    harness.main()
