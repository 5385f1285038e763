# Functions of the scripts in this directory. Sourced, not run.

# The title of a step.
heading() {
  if [[ -t 1 ]]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}

say() { printf '   %s\n' "$*"; }

fail() {
  printf '\n%s: %s\n' "${0##*/}" "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds.
wait_for() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@"; do
    ((SECONDS <= deadline)) || fail "waited $seconds s in vain for: $what" "Logs: $directory/*.log"
    sleep 0.1
  done
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# field NAME: the value of the first member of that name in the one-line JSON document on standard input. Enough for
# numbers, names and hex digits.
field() { grep -o "\"$1\":[^,}]*" | head -n 1 | cut -d: -f2- | tr -d '"'; }

# Turns package stanzas (apt-cache dumpavail) into the JSON Lines that `towctl import` reads: key
# pkg/<package>/<version>, value the stanza.
stanzas_to_jsonl() {
  LC_ALL=C awk '
    BEGIN { RS = ""; FS = "\n" }
    {
      package = version = ""
      for (i = 1; i <= NF && (package == "" || version == ""); i++) {
        if ($i ~ /^Package: /) package = substr($i, 10)
        else if ($i ~ /^Version: /) version = substr($i, 10)
      }
      if (package == "" || version == "") next
      gsub(/\\/, "&&")
      gsub(/"/, "\\\\&")
      gsub(/\t/, "\\t")
      gsub(/\r/, "\\r")
      gsub(/\n/, "\\n")
      print "{\"key\":\"pkg/" package "/" version "\",\"value\":\"" $0 "\"}"
    }
  '
}
