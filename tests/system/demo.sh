#!/bin/bash
# The main job on a small input, with its kills: what it answers, and that it
# leaves nothing behind when it ends, after Ctrl-C, and after its own SIGKILL.
#
#   tests/system/demo.sh PETAL [RECORDS]

set -euo pipefail

petal=${1:?the petal program}
records=${2:-3000}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"

input=$sandbox/input
"$here/../stanzas" "$records" >"$input"

# judge FILE: every claim of the answer, each by name.
judge() {
	python3 - "$1" "$records" <<'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    answer = json.load(file)
records = int(sys.argv[2])
killed = json.dumps(answer["killed"])

claims = {
    "every record went in": answer["input_records"] == records,
    "every record has a result": answer["result_records"] == records,
    "nothing is lost": answer["lost"] == 0,
    "nothing is counted twice": answer["duplicated"] == 0,
    "the killed worker's message came again": answer["redelivered"] >= 1,
    "the digest is the one of a single pass":
        answer["digest"] == answer["reference_digest"] and answer["digest"],
    "a worker was killed": "worker" in killed,
    "a petal was killed": '"petal"' in killed,
    "the primary petal was killed": '"primary petal"' in killed,
    "another petal followed": answer["failover_seconds"] > 0,
    "it took time": answer["seconds"] > 0,
    "six levels have a price": len(answer["levels"]) == 6,
    "three peers have a row": len(answer["rpc"]) == 3,
}
broken = [claim for claim, holds in claims.items() if not holds]
for claim in broken:
    print(f"demo: not true: {claim}", file=sys.stderr)
if broken:
    print(json.dumps(answer, indent=1), file=sys.stderr)
sys.exit(1 if broken else 0)
END
}

# Runs the demo to its end and judges what it says.
demo() {
	local status=0
	(inside "$petal" demo --json --input "$input") \
		>"$sandbox/answer" 2>"$sandbox/errors" || status=$?
	((status == 0)) || {
		cat "$sandbox/answer" "$sandbox/errors" >&2
		fail "exit $status"
	}
	judge "$sandbox/answer" || fail "the answer is wrong"
}

three_petals_and_a_worker_run() {
	(($(count_running petald) >= 3 && $(running | wc -l) >= 5))
}

# Starts a demo that will not end by itself before it is interrupted.
start() {
	(inside setsid "$petal" demo --input "$input") \
		>"$sandbox/answer" 2>"$sandbox/errors" &
	demo_pid=$!
	until_true 60 three_petals_and_a_worker_run || {
		cat "$sandbox/errors" >&2
		fail "three petals never ran"
	}
}

demo_gone() {
	! running | grep -qx "$demo_pid"
}

end_leaves_nothing() {
	demo
	nothing_left "the end"
}

interrupt_leaves_nothing() {
	local status=0
	start
	kill -INT -- "-$demo_pid"
	until_true 30 demo_gone || fail "Ctrl-C does not end it"
	wait "$demo_pid" || status=$?
	((status != 0)) || fail "Ctrl-C looks like success"
	nothing_left "Ctrl-C"
}

kill_leaves_no_process_and_the_next_one_clears_up() {
	start
	kill -KILL "$demo_pid"
	wait "$demo_pid" 2>/dev/null || :
	until_true 30 nobody_runs ||
		fail "outlive the demo: $(leftovers)"
	demo
	nothing_left "SIGKILL and the next demo"
}

end_leaves_nothing
interrupt_leaves_nothing
kill_leaves_no_process_and_the_next_one_clears_up
