#!/bin/bash
# The bench `replicate`, as short as it goes: that its own rows are there and
# make sense, that a peer which is not installed is a row, and that nothing is
# left, also after Ctrl-C and after kill -9.
#
#   tests/system/replicate.sh PETAL

set -euo pipefail

petal=${1:?the petal program}
bench=${petal%/*}/../bench/replicate
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"

[[ -x $bench ]] || {
	echo "replicate: not built here" >&2
	exit 77
}

(inside timeout 120 "$petal" bench replicate --json --quick --rounds 1 \
	--only petal) >"$sandbox/rows" 2>"$sandbox/errors" ||
	fail "ended with $?: $(cat "$sandbox/errors")"
python3 - "$sandbox/rows" <<'END' || fail "rows that make no sense"
import json
import sys

rows = [json.loads(line) for line in open(sys.argv[1])]
assert "machine" in rows.pop(0)
want = {(level, window, impl, wait)
        for level in ("mem2", "mem3", "disk2", "disk3")
        for window in (1, 256)
        for impl, wait in (("petal", "sleep"), ("bare-star", "sleep"),
                           ("bare-star", "spin"))}
want |= {("mem2", 4, impl, "sleep")
         for impl in ("petal", "bare-star", "bare-write")}
want |= {("disk2", 256, f"device-{n}", "sleep") for n in (1, 3)}
have = {(r["level"], r["window"], r["impl"], r["wait"]) for r in rows}
assert have == want, have ^ want
for row in rows:
    assert row["bench"] == "replicate" and row["n"] > 0, row
    assert 0 < row["p50_ns"] <= row["p99_ns"] <= row["max_ns"], row
    assert row["msgs_per_s"] > 0 and row["floor_ratio"] > 0, row
    assert row["bytes"] == (1 << 20 if row["window"] == 4 else 256), row
END
nothing_left 'a run'

for signal in INT KILL; do
	inside "$petal" bench replicate --only petal >/dev/null 2>&1 &
	pid=$!
	runs() {
		(($(count_running petald) == 3))
	}
	until_true 30 runs || fail "three petald did not start"
	kill -"$signal" "$pid"
	status=0
	wait "$pid" || status=$?
	((status == 128 + $(kill -l "$signal"))) ||
		fail "ended with $status after SIG$signal"
	nothing_left "SIG$signal"
done
