#!/usr/bin/python3
"""Generates the Python stubs of the Towline API.

  generate_stubs.py OUTPUT_DIR [FILE.proto ...]

Puts `towline/v1/*_pb2.py` and `*_pb2_grpc.py` below OUTPUT_DIR, which then has to be on the module search path. Further
proto files, if any, are generated into the same directory. Needs Debian's protobuf-compiler and protobuf-compiler-grpc.
"""

import pathlib
import shutil
import subprocess
import sys

PROTO_ROOT = pathlib.Path(__file__).resolve().parents[3] / "proto"


def generate(output, more=()):
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    plugin = shutil.which("grpc_python_plugin")
    if shutil.which("protoc") is None or plugin is None:
        sys.exit("protoc or grpc_python_plugin is missing: apt-get install protobuf-compiler protobuf-compiler-grpc")
    # The first match names a file: what is given in addition becomes a module without a package.
    includes = [*sorted({pathlib.Path(path).parent for path in more}), PROTO_ROOT]
    files = [*sorted(PROTO_ROOT.glob("towline/v1/*.proto")), *more]
    subprocess.run(
        ["protoc", *(f"-I{path}" for path in includes), f"--python_out={output}", f"--grpc_python_out={output}",
         f"--plugin=protoc-gen-grpc_python={plugin}", *map(str, files)],
        check=True)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    generate(sys.argv[1], sys.argv[2:])
