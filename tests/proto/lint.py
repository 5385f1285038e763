"""Checks the style rules of the public API over the descriptors that protoc makes of it.

  lint.py --protoc PROTOC --root DIR/proto               all files below DIR/proto
  lint.py --protoc PROTOC --root DIR/proto --self-test   plants one violation of each rule and expects a report

Every report is one line: file:line: [rule] what is wrong; what to write instead. Exit code 1 if there is any.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from google.protobuf import descriptor_pb2

PACKAGE = "towline.v1"

# Field numbers of descriptor.proto, which make the paths of SourceCodeInfo.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF = 2, 3, 4, 8
ENUM_VALUE = 2
SERVICE_METHOD = 2


class Report(NamedTuple):
    path: str
    line: int
    rule: str
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.text}"


def upper_snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


class FileLint:
    """The rules for one file."""

    def __init__(self, file):
        self.file = file
        self.locations = {tuple(location.path): location for location in file.source_code_info.location}
        self.reports = []

    def report(self, path, rule, text):
        location = self.locations.get(path)
        line = location.span[0] + 1 if location else 1
        self.reports.append(Report(self.file.name, line, rule, text))

    def require_comment(self, path, kind, name):
        location = self.locations.get(path)
        if not location or not (location.leading_comments.strip() or location.trailing_comments.strip()):
            self.report(path, "comment", f"{kind} {name} has no comment; say what it means and who sets it")

    def run(self):
        file = self.file
        if file.package != PACKAGE:
            self.report((2,), "package", f"package {file.package or '(none)'}; it is {PACKAGE}")
        directory = str(Path(file.name).parent)
        if directory != file.package.replace(".", "/"):
            self.report((2,), "directory", f"{file.package} is in {directory}; move it to its package's directory")
        if file.syntax != "proto3":
            self.report((12,), "syntax", "write syntax = \"proto3\"")
        for index, message in enumerate(file.message_type):
            self.check_message((FILE_MESSAGE, index), message)
        for index, enum in enumerate(file.enum_type):
            self.check_enum((FILE_ENUM, index), enum)
        for index, service in enumerate(file.service):
            if index > 0:
                self.report((FILE_SERVICE, index), "one-service", f"{service.name} is a second service; give it a file")
            self.check_service((FILE_SERVICE, index), service)
        return self.reports

    def check_message(self, path, message):
        if message.options.map_entry:
            return
        self.require_comment(path, "message", message.name)
        for index, field in enumerate(message.field):
            self.require_comment(path + (MESSAGE_FIELD, index), "field", f"{message.name}.{field.name}")
            if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name):
                self.report(path + (MESSAGE_FIELD, index), "name", f"field {field.name}; write lower_snake_case")
        for index, oneof in enumerate(message.oneof_decl):
            # A proto3 `optional` field has a oneof of its own, without a place in the source.
            if path + (MESSAGE_ONEOF, index) in self.locations:
                self.require_comment(path + (MESSAGE_ONEOF, index), "oneof", f"{message.name}.{oneof.name}")
        for index, nested in enumerate(message.nested_type):
            self.check_message(path + (MESSAGE_NESTED, index), nested)
        for index, enum in enumerate(message.enum_type):
            self.check_enum(path + (MESSAGE_ENUM, index), enum)

    def check_enum(self, path, enum):
        self.require_comment(path, "enum", enum.name)
        prefix = upper_snake(enum.name) + "_"
        for index, value in enumerate(enum.value):
            value_path = path + (ENUM_VALUE, index)
            self.require_comment(value_path, "enum value", value.name)
            if not value.name.startswith(prefix):
                self.report(value_path, "enum-prefix", f"{value.name} in {enum.name}; begin it with {prefix}")
            if value.number == 0 and not value.name.endswith("_UNSPECIFIED"):
                self.report(value_path, "enum-zero", f"{value.name} = 0; the value 0 is {prefix}UNSPECIFIED")

    def check_service(self, path, service):
        self.require_comment(path, "service", service.name)
        for index, method in enumerate(service.method):
            method_path = path + (SERVICE_METHOD, index)
            self.require_comment(method_path, "rpc", f"{service.name}.{method.name}")
            for kind, actual in (("Request", method.input_type), ("Response", method.output_type)):
                expected = method.name + kind
                if actual != f".{self.file.package}.{expected}":
                    self.report(method_path, "own-messages",
                                f"rpc {method.name} uses {actual.lstrip('.')}; give it its own {expected}")


# Standard protocols (proto/grpc) keep the names that the world knows.
def lint(protoc, root):
    files = sorted(path.relative_to(root).as_posix() for path in Path(root).glob("towline/**/*.proto"))
    if not files:
        return [Report(str(root), 0, "files", "no proto files")]
    with tempfile.NamedTemporaryFile(suffix=".pb") as output:
        subprocess.run([protoc, f"-I{root}", f"--descriptor_set_out={output.name}", "--include_source_info", *files],
                       check=True)
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(Path(output.name).read_bytes())
    reports = [report for file in descriptors.file for report in FileLint(file).run()]
    reports += shared_messages(descriptors)
    return reports


def shared_messages(descriptors):
    """A request or response message belongs to one rpc only, in all files together."""
    users = {}
    for file in descriptors.file:
        for service in file.service:
            for method in service.method:
                for name in {method.input_type, method.output_type}:
                    users.setdefault(name, []).append(f"{service.name}.{method.name}")
    return [Report(name.lstrip("."), 0, "own-messages", f"is shared by {', '.join(methods)}; give each its own")
            for name, methods in users.items() if len(methods) > 1]


# --- Self-test ---

CLEAN = """// A comment.
syntax = "proto3";
package towline.v1;
// S.
service CleanService {
  // M.
  rpc Get(GetRequest) returns (stream GetResponse);
}
// R.
message GetRequest {
  // A.
  optional int32 a = 1;
  map<string, string> labels = 2;  // Trailing comments count.
}
// R.
message GetResponse {
  // K.
  oneof kind {
    // B.
    bytes b = 1;
  }
}
// E.
enum HTTPKind {
  // Not set.
  HTTP_KIND_UNSPECIFIED = 0;
}
"""

# (what to replace in CLEAN, by what, the rule that has to report it, line)
PLANTED = [
    ("  // A.\n", "", "comment", 11),
    ("// R.\nmessage GetResponse", "\nmessage GetResponse", "comment", 16),
    ("  // M.\n", "", "comment", 6),
    ("  // K.\n", "", "comment", 17),
    ("  // Not set.\n", "", "comment", 25),
    ("// E.\n", "", "comment", 23),
    ("HTTP_KIND_UNSPECIFIED", "HTTP_KIND_NONE", "enum-zero", 26),
    ("HTTP_KIND_UNSPECIFIED", "KIND_UNSPECIFIED", "enum-prefix", 26),
    ("returns (stream GetResponse)", "returns (stream GetRequest)", "own-messages", 7),
    ("int32 a = 1", "int32 aB = 1", "name", 12),
    ("// R.\nmessage GetRequest", "// T.\nservice OtherService {}\n// R.\nmessage GetRequest", "one-service", 10),
    ("package towline.v1;", "package towline.v2;", "package", 3),
    ("package towline.v1;", "package towline.v2;", "directory", 3),
]


def self_test(protoc):
    failures = []
    for before, after, rule, line in [("", "", None, 0), *PLANTED]:
        with tempfile.TemporaryDirectory() as root:
            path = Path(root) / "towline/v1/planted.proto"
            path.parent.mkdir(parents=True)
            assert before in CLEAN
            path.write_text(CLEAN.replace(before, after, 1))
            reports = lint(protoc, root)
            if rule is None and reports:
                failures += [f"reported without cause: {report}" for report in reports]
            if rule and (rule, line) not in {(report.rule, report.line) for report in reports}:
                failures.append(f"{before!r} -> {after!r}: {rule} at line {line} is not among {reports}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protoc", default="protoc")
    parser.add_argument("--root", required=True)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()

    problems = self_test(arguments.protoc) if arguments.self_test else lint(arguments.protoc, arguments.root)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
