#!/bin/bash
# The primary's petald killed under load, again and again, and each time another
# member follows. Nothing acknowledged may be missing, nothing may be twice.
# Prints a JSON line: the time to the next acknowledgement, of kills that took
# the registry's leader too in a row of their own.
#
#   tests/system/failover.sh PETAL CLIENT
#
# Harder: KILLS=100; LEVEL=disk2 (mem3 and disk3 wait for the killed one, which
# comes back only when another has followed); ELECTION_MS=60 on an idle machine.

set -euo pipefail

petal=${1:?the petal program}
client=${2:?the program of system/successor.c}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"
# shellcheck source=tests/system/nodes.sh
source "$here/nodes.sh"

KILLS=${KILLS:-8}
LEVEL=${LEVEL:-mem2}
NODES_ELECTION_MS=${ELECTION_MS:-300}
LIMIT_S=$((60 + 4 * KILLS))

# The member of the ring that asks, and the leader of the registry.
ring_is_made() {
	(inside "$client" make "$sandbox/1" ring) 2>/dev/null
}

# all_are_in NODE: each member holds everything and has its vote.
all_are_in() {
	local states
	states=$(inside timeout 10 "$petal" rings --json \
		--dir "$sandbox/$1" 2>/dev/null | python3 -c '
import json, sys
ring = json.load(sys.stdin)["rings"][0]
print(ring["role"], *sorted(m["state"] for m in ring["members"]))') || return 1
	[[ $states == 'primary in in self' ]]
}

leader() {
	inside timeout 10 "$petal" status --json --dir "$sandbox/$1" \
		2>/dev/null | python3 -c '
import json, sys
print(json.load(sys.stdin)["registry"]["leader"])' || :
}

make_key "$sandbox/key"
for node in 1 2 3; do
	write_config "$node"
	start "$node"
done
until_true "$READY_S" ring_is_made || fail "cannot make a ring"

mkfifo "$sandbox/tell" "$sandbox/hear"
(inside timeout "$LIMIT_S" "$client" run "$KILLS" "$LEVEL" ring \
	"$sandbox/1" "$sandbox/2" "$sandbox/3") \
	<"$sandbox/tell" >"$sandbox/hear" 2>"$sandbox/errors" &
client_pid=$!
exec 4>"$sandbox/tell" 5<"$sandbox/hear"

complain() {
	fail "$*: $(cat "$sandbox/errors" "$sandbox"/?.log)"
}

# next_primary WHAT: sets node to whom the client has found.
next_primary() {
	local word dir
	read -r -t "$READY_S" word dir <&5 && [[ $word == primary ]] ||
		complain "$1"
	node=${dir##*/}
}

next_primary 'there is no primary'
for ((kill = 0; kill < KILLS; kill++)); do
	until_true "$READY_S" all_are_in "$node" ||
		complain "not all are in after $kill kills"
	also=''
	[[ $(leader "$node") != "$node" ]] || also=leader
	at=$EPOCHREALTIME
	kill -KILL "${pid_of[$node]}"
	echo "$at $also" >&4
	killed=$node
	wait "${pid_of[$killed]}" 2>/dev/null || :
	# It comes back when another one has followed, without its memory.
	next_primary "nobody followed node $killed"
	start "$killed"
done
answer=$(cat <&5)
status=0
wait "$client_pid" || status=$?
echo "$answer"
((status == 0)) || complain "exit $status"
for node in 1 2 3; do
	kill -TERM "${pid_of[$node]}"
	status=0
	wait "${pid_of[$node]}" || status=$?
	((status == 0)) || complain "node $node ended with $status"
done
nothing_left "the end"
