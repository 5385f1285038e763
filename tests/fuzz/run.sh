#!/usr/bin/env bash
# Fuzzes the core, from any working directory.
#
#   tests/fuzz/run.sh [SECONDS_PER_TARGET] [TARGET...]    60 seconds and all targets, if nothing is said
#
# Builds preset `fuzz` (Clang). Starts from the committed inputs (tests/fuzz/corpus/TARGET) and the target's seeds; what
# is found on the way stays in build/fuzz-work/corpus/TARGET and is used again. Inputs that crash are kept in
# build/fuzz-work/crash/TARGET. Exits with 1 if there was one.
#
# A crash once more:          build/fuzz/tests/bin/fuzz_TARGET FILE
# Made as short as possible:  build/fuzz/tests/bin/fuzz_TARGET -minimize_crash=1 -max_total_time=60 FILE
# New inputs to commit:       build/fuzz/tests/bin/fuzz_TARGET -merge=1 tests/fuzz/corpus/TARGET \
#                               build/fuzz-work/corpus/TARGET
set -euo pipefail

usage() { sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
all_targets=(frame recovery classifier index control slots rdb)

seconds=60
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  [0-9]*) seconds=$1; shift ;;
esac
targets=("$@")
((${#targets[@]} > 0)) || targets=("${all_targets[@]}")
for target in "${targets[@]}"; do
  if [[ ! -f "tests/fuzz/${target}_fuzz.cc" ]]; then
    echo "run.sh: no target $target; there are: ${all_targets[*]}" >&2
    exit 2
  fi
done
if ! [[ "$seconds" =~ ^[1-9][0-9]*$ ]]; then
  echo "run.sh: $seconds is not a number of seconds" >&2
  exit 2
fi

cmake --preset fuzz
cmake --build --preset fuzz --parallel "$(nproc)"

# A small quarantine and short stacks: twice the speed.
export ASAN_OPTIONS=quarantine_size_mb=4:malloc_context_size=6:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1
bin=build/fuzz/tests/bin
crashed=()
for target in "${targets[@]}"; do
  work=build/fuzz-work/corpus/$target
  seeds=build/fuzz-work/seeds/$target
  crashes=build/fuzz-work/crash/$target
  log=build/fuzz-work/$target.log
  mkdir -p "$work" "$seeds" "$crashes"
  echo "[$(date +%H:%M:%S)] == fuzz $target for $seconds s"
  status=0
  "$bin/fuzz_replay_$target" --write-seeds "$seeds"
  timeout $((seconds + 300)) "$bin/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
    -max_len=4096 -print_final_stats=1 -artifact_prefix="$crashes/" "$work" "tests/fuzz/corpus/$target" "$seeds" \
    >"$log" 2>&1 || status=$?
  grep -E '^#[0-9]+[[:space:]]+DONE' "$log" || true
  if ((status != 0)); then
    crashed+=("$target")
    grep -E -A 1 'broken:|ERROR:|runtime error:' "$log" | head -20 || tail -20 "$log"
    grep 'Test unit written to' "$log" || true
  fi
done

if ((${#crashed[@]} > 0)); then
  echo "Crashed: ${crashed[*]}; inputs in build/fuzz-work/crash, logs in build/fuzz-work/*.log"
  exit 1
fi
echo "No crash in: ${targets[*]}"
