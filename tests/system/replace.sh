#!/bin/bash
# Four nodes, a ring on three, a producer and a taker at work: a backup is lost
# for good, and petal replace puts the fourth in its place. Then the primary is
# killed: the two that are left must have all that was acknowledged.
#
#   tests/system/replace.sh PETAL CLIENT

set -euo pipefail

petal=${1:?the petal program}
client=${2:?the program of system/successor.c}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"

NODES_COUNT=4
# shellcheck source=tests/system/nodes.sh
source "$here/nodes.sh"

ring_is_made() {
	(inside "$client" make "$sandbox/1" ring) 2>/dev/null
}

# members NODE: "NODE STATE" of each member, in order of the nodes.
members() {
	inside timeout 10 "$petal" rings --json --dir "$sandbox/$1" \
		2>/dev/null | python3 -c '
import json, sys
ring = json.load(sys.stdin)["rings"][0]
print(*sorted("%d %s" % (m["node"], m["state"]) for m in ring["members"]))'
}

all_are_in() {
	[[ $(members 1) == *in*in* || $(members 1) == *in*self*in* ]]
}

complain() {
	fail "$*: $(cat "$sandbox"/errors* "$sandbox"/?.log)"
}

# refused WORD ARGUMENT...: petal replace says no, and why.
refused() {
	local word=$1 status=0
	shift
	(inside timeout 20 "$petal" replace --dir "$sandbox/1" "$@") \
		>/dev/null 2>"$sandbox/errors" || status=$?
	((status != 0)) || complain "petal replace $* is not refused"
	grep -qF -- "$word" "$sandbox/errors" ||
		complain "petal replace $* does not name '$word'"
}

make_key "$sandbox/key"
for node in 1 2 3 4; do
	write_config "$node"
	start "$node"
done
until_true "$READY_S" ring_is_made || fail "cannot make a ring"
until_true "$READY_S" all_are_in || fail "not all are in: $(members 1)"
read -r first _ second _ third _ <<<"$(members 1)"
old=$third
for node in 1 2 3 4; do
	[[ " $first $second $third " == *" $node "* ]] || new=$node
done
[[ $first == 1 ]] || fail "node 1 made the ring, and is no member"

mkfifo "$sandbox/tell"
(inside timeout 90 "$client" run 0 mem2 ring "$sandbox/1" \
	"$sandbox/$second" "$sandbox/$new") \
	<"$sandbox/tell" >"$sandbox/heard" 2>"$sandbox/errors.client" &
client_pid=$!
exec 4>"$sandbox/tell"
until_true "$READY_S" grep -q primary "$sandbox/heard" ||
	complain "the client does not begin"

refused 'expected two different' 2 2
refused 'no node of that number' "$old" 200
refused 'a member of the ring already' "$old" "$second"
refused "is the ring's primary" 1 "$new"

killed "$old"
(inside timeout 150 "$petal" replace --dir "$sandbox/1" "$old" "$new") \
	>"$sandbox/answer" 2>"$sandbox/errors" || complain "petal replace"
grep -q "node $new is in, instead of node $old, since epoch 2" \
	"$sandbox/answer" || complain "says $(cat "$sandbox/answer")"
[[ $(members 1) == *"$new in"* ]] || complain "$(members 1)"

# The one that is gone comes back, and is told that it is no member.
start "$old"
not_a_member() {
	[[ $(members "$old") == *"$new"* ]]
}
until_true "$READY_S" not_a_member || complain "the old one keeps the ring"

killed 1
# So long as the client needs to find another, and go on for a while.
sleep 3
exec 4>&-
status=0
wait "$client_pid" || status=$?
answer=$(tail -1 "$sandbox/heard")
((status == 0)) || complain "the client: exit $status: $answer"
echo "$answer"
for node in "$second" "$new" "$old"; do
	kill -TERM "${pid_of[$node]}"
	status=0
	wait "${pid_of[$node]}" || status=$?
	((status == 0)) || complain "node $node ended with $status"
done
nothing_left "the end"
