#!/usr/bin/env bash
# Installs the Debian 12 packages that Towline needs. What is installed already is left alone.
#
#   deploy/install_packages.sh               building, running, tests
#   deploy/install_packages.sh --build-only  building and running
#   deploy/install_packages.sh --bench       also what the comparison benchmarks run against
#   deploy/install_packages.sh --check       installs nothing; exit 1 if a package is missing
set -euo pipefail

build_packages=(
  g++ cmake ninja-build ccache pkg-config
  libgrpc++-dev libgrpc-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev
  librocksdb-dev libabsl-dev libisal-dev libxxhash-dev
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libspdlog-dev prometheus-cpp-dev libcpp-httplib-dev
)
test_packages=(
  clang clang-tidy clang-format libclang-rt-14-dev
  libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev
  python3 python3-grpcio python3-protobuf
  redis-server redis-tools prometheus
  strace iproute2 nftables e2fsprogs procps jq curl
)
bench_packages=(postgresql-15)

usage() { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

packages=("${build_packages[@]}" "${test_packages[@]}")
check_only=false
arguments=("$@")
for argument in "$@"; do
  case "$argument" in
    --build-only) packages=("${build_packages[@]}") ;;
    --bench) packages+=("${bench_packages[@]}") ;;
    --check) check_only=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "install_packages.sh: unknown argument: $argument" >&2; usage >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_packages.sh: this is not a Debian system. Install the equivalents of: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "All ${#packages[@]} packages are installed."
  exit 0
fi
echo "Missing packages: ${missing[*]}"
$check_only && exit 1

if ((EUID != 0)); then
  echo "Not root. To install them, run:" >&2
  echo "  sudo $(realpath "${BASH_SOURCE[0]}")${arguments[*]:+ ${arguments[*]}}" >&2
  exit 1
fi

# Debian starts services as it installs them (redis-server, prometheus, postgresql-15). Nothing here needs a system
# service: tests start their own processes. A policy file that denies every start is in place for the duration.
policy=/usr/sbin/policy-rc.d
if [[ ! -e "$policy" ]]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  echo "Services of these packages are not started now ($policy, removed at the end)."
  echo "On a machine that boots with systemd they start at the next boot unless they are disabled."
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends "${missing[@]}"
