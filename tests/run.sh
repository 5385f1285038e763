#!/usr/bin/env bash
# Builds and tests Towline, from any working directory and in a fresh clone.
#
#   tests/run.sh          what CI runs: the core under ThreadSanitizer, then built by Clang with lock analysis under
#                         AddressSanitizer and UndefinedBehaviorSanitizer, then all tests of the release build
#   tests/run.sh --quick  unit tests of the debug build
#   tests/run.sh --full   also everything under AddressSanitizer, every header alone, a minute of fuzzing per target,
#                         and the long forms of tests (TOWLINE_LONG=1)
#
# Missing packages are installed first (root) or named (anybody else). Exits with an error at the first failed stage.
# The last lines are ctest's summary of the last stage.
set -euo pipefail

usage() { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

form=default
for argument in "$@"; do
  case "$argument" in
    --quick) form=quick ;;
    --full) form=full ;;
    -h | --help) usage; exit 0 ;;
    *) echo "run.sh: unknown argument: $argument" >&2; usage >&2; exit 2 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(nproc)
without_aslr=()
current_stage="start"
trap 'status=$?; ((status == 0)) || echo "[$(date +%H:%M:%S)] FAILED (exit $status) in stage: $current_stage" >&2' EXIT

stage() {
  current_stage="$*"
  echo "[$(date +%H:%M:%S)] == $current_stage"
}

build() {
  local preset=$1
  shift
  stage "build $preset"
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs" "$@"
}

run_tests() {
  local preset=$1
  shift
  stage "test $preset"
  "${without_aslr[@]}" ctest --preset "$preset" --parallel "$jobs" "$@"
}

stage "packages"
deploy/install_packages.sh

if [[ "$form" == quick ]]; then
  echo "Skipped in the quick form, to keep the edit loop short: tests labelled e2e or crash, the release build, ThreadSanitizer," \
    "AddressSanitizer, Clang. Run tests/run.sh before a change is done."
  build debug
  run_tests debug --label-exclude 'e2e|crash'
  exit 0
fi

if [[ "$form" == full ]]; then
  export TOWLINE_LONG=1
else
  echo "Skipped in the default form, because they take long: AddressSanitizer over server and clients, headers that" \
    "compile alone, fuzzing, and the long forms of tests. tests/run.sh --full runs them."
fi

# GCC 12's ThreadSanitizer cannot place its shadow memory when the kernel randomizes more than 28 bits of addresses.
if (($(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0) > 28)); then
  without_aslr=(setarch --addr-no-randomize)
fi
build tsan
run_tests tsan
without_aslr=()

build asan-core
run_tests asan-core

if [[ "$form" == full ]]; then
  build asan-ubsan
  run_tests asan-ubsan
  build clang
  stage "headers compile alone"
  cmake --build --preset clang --parallel "$jobs" --target all_verify_interface_header_sets
  stage "fuzz"
  tests/fuzz/run.sh 60
fi

build release
run_tests release
