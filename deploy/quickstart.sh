#!/usr/bin/env bash
# From a fresh Debian 12 machine to a running cluster with real data: builds Towline, starts one primary and two
# replicas on loopback, loads the list of all Debian packages, and shows a partial resync and a re-bootstrap.
#
#   deploy/quickstart.sh          leaves the cluster running, and says what to try
#   deploy/quickstart.sh --once   stops it at the end and removes its data
#   deploy/quickstart.sh --stop   stops a cluster that was left running; its data stays until the next run
#
# Data and logs go to ./quickstart-data, or to TOWLINE_QUICKSTART_DIR. Ports are 7700 to 7702 and 7780 to 7782, or
# from TOWLINE_QUICKSTART_PORT on. Installing packages needs root; everything else does not.
set -euo pipefail

usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

once=false
stop_only=false
for argument in "$@"; do
  case "$argument" in
    --once) once=true ;;
    --stop) stop_only=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart.sh: unknown argument: $argument" >&2; usage >&2; exit 2 ;;
  esac
done

source_directory=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
directory=$(realpath -m "${TOWLINE_QUICKSTART_DIR:-./quickstart-data}")
port=${TOWLINE_QUICKSTART_PORT:-7700}
[[ "$port" =~ ^[0-9]{1,5}$ ]] && ((port >= 1 && port <= 65400)) ||
  { echo "quickstart.sh: TOWLINE_QUICKSTART_PORT=$port is not a port from 1 to 65400" >&2; exit 2; }
bin=$source_directory/build/bin
marker=$directory/made-by-towline-quickstart
nodes=(p1 r1 r2)
declare -A grpc=([p1]=127.0.0.1:$port [r1]=127.0.0.1:$((port + 1)) [r2]=127.0.0.1:$((port + 2)))
declare -A http=([p1]=127.0.0.1:$((port + 80)) [r1]=127.0.0.1:$((port + 81)) [r2]=127.0.0.1:$((port + 82)))

# shellcheck source=lib.sh
source "$source_directory/deploy/lib.sh"

# --- Nodes ---

# Small limits, so that a log of 50 MB already shows what usually takes days: a slot may hold back 64 MiB.
primary_limits=(--wal.segment_bytes 4MiB --wal.keep_bytes 8MiB --slots.max_retained_bytes 64MiB --store.flush_bytes 8MiB)
replica_limits=(--wal.segment_bytes 4MiB --wal.keep_bytes 8MiB --store.flush_bytes 8MiB)

start_node() {
  local node=$1 arguments
  arguments=(--data-dir "$directory/$node" --node-id "$node" --listen "${grpc[$node]}" --http "${http[$node]}")
  case "$node" in
    p1) arguments=(primary "${arguments[@]}" "${primary_limits[@]}") ;;
    *) arguments=(replica "${arguments[@]}" --upstream "${grpc[p1]}" "${replica_limits[@]}") ;;
  esac
  setsid "$bin/towlined" "${arguments[@]}" </dev/null >>"$directory/$node.log" 2>&1 &
  echo $! >"$directory/$node.pid"
  disown
}

# The process id of a node that runs; fails if it does not. A number that now belongs to something else does not count.
pid_of() {
  local pid
  pid=$(cat "$directory/$1.pid" 2>/dev/null) || return 1
  { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qxF -- "$directory/$1" || return 1
  echo "$pid"
}

kill_node() {
  kill -9 "$(pid_of "$1")"
  wait_for 10 "the end of $1" node_is_gone "$1"
}

node_is_gone() { ! pid_of "$1" >/dev/null; }

stop_nodes() {
  local node pid stopped=0
  for node in r2 r1 p1; do
    pid=$(pid_of "$node") || continue
    kill -TERM "$pid"
    wait_for 30 "the end of $node" node_is_gone "$node"
    stopped=$((stopped + 1))
  done
  echo "$stopped"
}

tow() { # tow NODE VERB...
  local node=$1
  shift
  "$bin/towctl" --endpoint "${grpc[$node]}" "$@"
}

status_field() { tow "$1" status -o json 2>/dev/null | field "$2"; }
in_state() { [[ "$(status_field "$1" state)" == "$2" ]]; }
durable_lsn() { status_field p1 durable_lsn; }
has_applied() { (($(status_field "$1" applied_lsn || echo 0) >= $2)); }
counter() { tow p1 status -o json | field "$1"; } # a resync counter of the primary
counter_is() { [[ "$(counter "$1")" == "$2" ]]; }
slot_state() { tow p1 slot get "$1" -o json | field state; }
slot_is() { [[ "$(slot_state "$1")" == "$2" ]]; }

import_packages() {
  apt-cache dumpavail | stanzas_to_jsonl | tow p1 import - 2>&1 | tail -n 3 | sed 's/^/   /'
}

# All nodes at one LSN: their digests, and a failure if they differ.
show_digests() {
  local lsn node line digests=()
  lsn=$(durable_lsn)
  for node in "${nodes[@]}"; do
    wait_for 60 "LSN $lsn on $node" has_applied "$node" "$lsn"
    line=$(tow "$node" digest --at-lsn "$lsn" --timeout 60s)
    say "$node  $line"
    digests+=("${line%% *}")
  done
  [[ "${digests[0]}" == "${digests[1]}" && "${digests[0]}" == "${digests[2]}" ]] ||
    fail "the nodes hold different data. This is a bug." "Keep $directory and report it."
}

# --- Stop ---

if $stop_only; then
  [[ -e "$marker" ]] || fail "there is no cluster of this script in $directory"
  echo "Stopped $(stop_nodes) nodes. Their data is still in $directory; the next run removes it, or: rm -r $directory"
  exit 0
fi

# --- What could be in the way ---

if [[ -e "$marker" ]]; then
  for node in "${nodes[@]}"; do
    ! pid_of "$node" >/dev/null ||
      fail "the cluster of an earlier run is still there: $node runs with process id $(pid_of "$node")" \
        "Use it: $bin/towctl --endpoint ${grpc[p1]} status" "Or stop it: TOWLINE_QUICKSTART_DIR=$directory $source_directory/deploy/quickstart.sh --stop"
  done
elif [[ -e "$directory" && -n "$(ls -A "$directory" 2>/dev/null)" ]]; then
  fail "$directory is not empty, and not from this script" "Set TOWLINE_QUICKSTART_DIR to another place."
fi
for node in "${nodes[@]}"; do
  for address in "${grpc[$node]}" "${http[$node]}"; do
    port_is_free "${address##*:}" ||
      fail "something else listens on $address, which $node needs" \
        "Stop it, or choose other ports: TOWLINE_QUICKSTART_PORT=17700 deploy/quickstart.sh"
  done
done
command -v apt-cache >/dev/null || fail "apt-cache is missing: the data of this tour is Debian's list of packages"

# --- Go ---

heading "Packages"
"$source_directory/deploy/install_packages.sh" --build-only | sed 's/^/   /'
if [[ -z "$(apt-cache dumpavail 2>/dev/null | head -n 1)" ]]; then
  ((EUID == 0)) || fail "apt has no package lists, which are the data of this tour" "Run as root: apt-get update"
  say "The package lists are empty; updating them."
  apt-get update -qq
fi

heading "Build (release)"
build_directory=$source_directory/build/release
configure=(cmake --preset release)
if ! "$source_directory/deploy/install_packages.sh" --check >/dev/null 2>&1; then
  # Without the packages that only tests need, and apart from the developers' build directory.
  build_directory=$source_directory/build/quickstart
  configure+=(-B "$build_directory" -DTOWLINE_BUILD_TESTS=OFF)
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cd "$source_directory"
{ "${configure[@]}" && cmake --build "$build_directory" --target towlined towctl --parallel "$(nproc)"; } >"$log" 2>&1 ||
  { tail -n 40 "$log" >&2; fail "the build failed"; }
cd "$OLDPWD"
say "$("$bin/towlined" --version), $("$bin/towctl" --version)"

heading "One primary, two replicas"
if [[ -e "$marker" ]]; then
  say "Removing the data of an earlier run in $directory."
  rm -rf -- "$directory"
fi
mkdir -p "$directory"
echo "Data of deploy/quickstart.sh. Each new run removes this directory." >"$marker"
echo '*' >"$directory/.gitignore"
finish() {
  local status=$?
  rm -f "$log" "$directory/writing"
  ((status == 0)) && ! $once && return
  stop_nodes >/dev/null || true
  ((status == 0)) || { echo "The nodes were stopped. Their logs: $directory/*.log" >&2; return; }
  rm -rf -- "$directory"
}
trap finish EXIT
trap 'exit 130' INT TERM
for node in "${nodes[@]}"; do start_node "$node"; done
wait_for 30 "the primary" in_state p1 writable
for node in r1 r2; do wait_for 30 "$node to stream" in_state "$node" streaming; done
for node in "${nodes[@]}"; do
  say "$node  gRPC ${grpc[$node]}  HTTP ${http[$node]}  $(status_field "$node" state)"
done

heading "Real data: every package that apt knows"
import_packages
say "towctl get of one of them, from a replica:"
bash_key=$(tow r1 scan --prefix pkg/bash/ --limit 1 | cut -f1)
tow r1 get "$bash_key" | sed -n '1,2p' | sed 's/^/     /'

heading "All nodes hold the same data: digest at one LSN"
show_digests

heading "kill -9 of r1 while writes go on"
partial_before=$(counter partial_total)
lsn_before=$(durable_lsn)
touch "$directory/writing"
(
  i=0
  while [[ -e "$directory/writing" ]]; do tow p1 put "live/$((i++))" "$(date +%T.%N)" >/dev/null; done
) &
writer=$!
wait_for 20 "writes" has_applied p1 $((lsn_before + 20))
kill_node r1
down_at=$(durable_lsn)
say "r1 is dead at LSN $down_at; the primary takes writes as before."
wait_for 20 "writes" has_applied p1 $((down_at + 50))
start_node r1
wait_for 30 "r1 to stream" in_state r1 streaming
wait_for 30 "the partial resync" counter_is partial_total $((partial_before + 1))
rm -f "$directory/writing"
wait "$writer"
say "r1 is back. It resumed from the log: partial resyncs $partial_before -> $(counter partial_total)," \
  "full resyncs $(counter full_total)."
show_digests

heading "r2 falls behind a log that is pruned"
kill_node r2
say "r2 is dead. The same packages are imported twice more, which is more log than its slot may hold back."
import_packages
import_packages
wait_for 30 "the slot's limit" slot_is r2 invalidated
tow p1 slot get r2 | sed 's/^/   /'
start_node r2
wait_for 60 "r2 to stream" in_state r2 streaming
wait_for 30 "the full resync" counter_is full_total 1
say "r2 is back. Its part of the log is gone, so it loaded a snapshot (RDB) and then the log:"
say "full resyncs $(counter full_total), reason $(tow p1 status -o json | grep -o '"full/[a-z_]*"' | tr -d '"')."
show_digests

heading "The primary's status"
tow p1 status | sed 's/^/   /'

if $once; then
  heading "Done"
  say "Stopping the nodes and removing $directory (--once)."
  exit 0
fi
heading "It is yours"
cat <<END
   towctl=$bin/towctl
   \$towctl --endpoint ${grpc[p1]} put greeting hello
   \$towctl --endpoint ${grpc[r1]} get greeting
   \$towctl --endpoint ${grpc[r2]} scan --prefix pkg/linux-image --limit 3
   \$towctl --endpoint ${grpc[p1]} tail --slot mine --create      # then put something, elsewhere
   \$towctl --endpoint ${grpc[p1]} status
   curl -s http://${http[p1]}/metrics | grep towline_ | head

   Data and logs: $directory
   Stop it: TOWLINE_QUICKSTART_DIR=$directory $source_directory/deploy/quickstart.sh --stop
END
