#!/bin/bash
# The power goes everywhere: every petald and every client killed at once, under
# load, and with them all shared memory. What was acknowledged at disk2 is there
# when any two disks are back, once, in order; and what took a message for good
# stays. Then a disk that is new, one that is damaged, and one that is alone.
#
#   tests/system/outage.sh PETAL CLIENT
#
# Harder: ROUNDS=20 (of all pairs); LOAD_S=5.

set -euo pipefail

petal=${1:?the petal program}
client=${2:?the program of system/outage.c}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"
# shellcheck source=tests/system/nodes.sh
source "$here/nodes.sh"

ROUNDS=${ROUNDS:-1}
LOAD_S=${LOAD_S:-1}
LIMIT_S=40
# A batch takes 4 KiB at least, and the taker acknowledges one by one.
NODES_JOURNAL=64M

complain() {
	fail "$*: $(tail -n 20 "$sandbox"/?.log)"
}

ring_is_made() {
	(inside "$client" make "$sandbox/1" "$1") 2>/dev/null
}

# load_more RING ROUND: some of it; the client is in $client_pid.
load_more() {
	local told=$sandbox/$1.told.$2
	(inside timeout "$LIMIT_S" "$client" load "$1" disk2 "$2" \
		"$sandbox/1" "$sandbox/2" "$sandbox/3") \
		>"$told" 2>"$sandbox/errors" &
	client_pid=$!
	until_true "$READY_S" grep -q '^done' "$told" ||
		complain "no load: $(cat "$sandbox/errors")"
	sleep "$LOAD_S"
}

# load RING: makes it as well.
load() {
	until_true "$READY_S" ring_is_made "$1" || complain "cannot make a ring"
	load_more "$1" 1
}

power_off() {
	# shellcheck disable=SC2046 # pids
	kill -KILL $(running) 2>/dev/null || :
	killed 1 2 3
	wait "$client_pid" 2>/dev/null || :
	until_true "$READY_S" nobody_runs || fail "somebody runs on"
	echo "--- power off" | tee -a "$sandbox"/{1,2,3}.log >/dev/null
}

# drain RING NODE...: what is there, from whoever is its primary by now.
drain() {
	local ring=$1 node dirs=()
	shift
	for node in "$@"; do
		dirs+=("$sandbox/$node")
	done
	(inside timeout "$LIMIT_S" "$client" drain "$ring" "${dirs[@]}") \
		>"$sandbox/$ring.got" 2>"$sandbox/errors" ||
		complain "nothing to drain from $ring: $(cat "$sandbox/errors")"
}

# judge RING: what was told before beside what is there now.
judge() {
	cat "$sandbox/$1.told".* >"$sandbox/$1.told"
	python3 - "$sandbox/$1.told" "$sandbox/$1.got" <<'END' ||
import sys

ROUND_NUMBERS = 1000000


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [line.split() for line in file if line.endswith("\n")]


told, got = lines(sys.argv[1]), lines(sys.argv[2])
put = {int(n) for word, n in told if word == "put"}
tried = {int(n) for word, n in told if word == "try"}
done = {int(n) for word, n in told if word == "done"}
there = [int(line[1]) for line in got if line[0] == "got"]
loss = [line[1:] for line in got if line[0] == "loss"][0]
missing = put - set(there) - tried
print(f"acknowledged {len(put)}, done {len(done)}, there {len(there)}, "
      f"loss epoch {loss[0]} from lsn {loss[1]}")
assert len(done) > 0 and len(put) > len(tried), "too little load"
assert not missing, f"missing: {sorted(missing)[:9]}"
assert len(there) == len(set(there)), "there twice"
assert not done & set(there), f"again: {sorted(done & set(there))[:9]}"
rounds = {}
for n in there:
    rounds.setdefault(n // ROUND_NUMBERS, []).append(n)
for key, mine in rounds.items():
    assert mine == list(range(mine[0], mine[0] + len(mine))), "out of order"
assert list(rounds) == sorted(rounds, key=lambda key: key % 1000), "out of order"
assert int(loss[0]) > 1 and int(loss[1]) > len(put), "a loss is not told"
END
		complain "$1 after the power was off: see above"
}

# all_are_in RING: whoever is its primary has two members that vote.
all_are_in() {
	local node
	for node in 1 2 3; do
		(inside timeout 10 "$petal" rings --json --dir \
			"$sandbox/$node") 2>/dev/null | python3 -c '
import json, sys
ring = [r for r in json.load(sys.stdin)["rings"] if r["name"] == sys.argv[1]][0]
states = sorted(m["state"] for m in ring["members"])
sys.exit(states != ["in", "in", "self"])' "$1" 2>/dev/null && return
	done
	return 1
}

any_two_disks_are_enough() {
	local pair late
	for pair in '1 2' '1 3' '2 3'; do
		local ring=pair-${pair/ /}-$1
		load "$ring"
		power_off
		for node in $pair; do
			start "$node"
		done
		# shellcheck disable=SC2086 # two words
		drain "$ring" $pair
		judge "$ring"
		late=$((6 - ${pair% *} - ${pair#* }))
		start "$late"
		until_true "$READY_S" all_are_in "$ring" ||
			complain "node $late is not brought up to $ring"
	done
}

# At whichever moment of a recovery it goes again, nothing is worse for it; and
# those who are there work on, so that logs part.
the_power_goes_again_and_again() {
	local nodes after round=1
	load again
	power_off
	for nodes in '1 2' '2 3' '1 2 3' '1 3' '2 3' '1 2'; do
		round=$((round + 1))
		for node in $nodes; do
			start "$node"
		done
		after=$((RANDOM % 5)).$((RANDOM % 10))
		echo "again after $after s"
		((RANDOM % 2)) || load_more again "$round"
		sleep "$after"
		power_off
	done
	start 1
	start 3
	drain again 1 3
	judge again
	start 2
	until_true "$READY_S" all_are_in again || complain 'node 2 is not in'
}

# recovers RING NODE WORD [OPTION]: what petal recover answers; sets $status.
says_of_recovery() {
	status=0
	(inside timeout "$LIMIT_S" "$petal" recover --dir "$sandbox/$2" \
		"${@:4}" "$1") >"$sandbox/answer" 2>&1 || status=$?
	grep -qF -- "$3" "$sandbox/answer"
}

recovers() {
	says_of_recovery "$@" || complain "petal recover does not say '$3':" \
		"$(cat "$sandbox/answer")"
}

stays_closed() {
	! (inside timeout 4 "$client" drain "$1" "$sandbox/1" "$sandbox/2" \
		"$sandbox/3") >"$sandbox/$1.early" 2>/dev/null ||
		complain "$1 is served: $(head -3 "$sandbox/$1.early")"
	[[ ! -s $sandbox/$1.early ]] || complain "$1 was opened"
}

# A new disk has no say, whatever else it has; with a second old one there it
# is filled, and then it has.
new_disk_has_no_say() {
	load new
	power_off
	rm "$sandbox/3/journal.0"
	start 1
	start 3
	until_true "$READY_S" says_of_recovery new 1 'two disks are needed' ||
		complain "petal recover says: $(cat "$sandbox/answer")"
	((status == 1)) || complain 'petal recover found nothing wrong'
	stays_closed new
	recovers new 3 'ask at the node whose disk does'
	start 2
	drain new 1 2 3
	judge new
	until_true "$READY_S" all_are_in new || complain 'node 3 is not filled'
	recovers new 1 'nothing to recover'
	((status == 0)) || complain 'petal recover finds something wrong'
}

# Flips a byte in the payload of a batch that a later header calls durable.
damage() {
	python3 - "$1/journal.0" <<'END'
import struct
import sys

with open(sys.argv[1], "r+b") as file:
    data = file.read()
    headers = []
    for at in range(32768, len(data), 4096):
        magic, = struct.unpack_from("<Q", data, at)
        sequence, = struct.unpack_from("<Q", data, at + 32)
        if magic == 0x6863746162706a11:
            headers.append((sequence, at))
    headers.sort()
    sequence, at = headers[-40]
    file.seek(at + 256)
    file.write(bytes([data[at + 256] ^ 1]))
    print(sequence, at)
END
}

damaged_journal_is_named_and_filled_anew() {
	local sequence at
	load bad
	power_off
	read -r sequence at < <(damage "$sandbox/2")
	! launch 2 || complain 'a damaged journal is taken'
	wait "${pid_of[2]}" 2>/dev/null || :
	grep -qE "journal.0' is damaged: batch $sequence,.* byte $at;.* lsn [0-9]+ to [0-9]+ of ring id" \
		"$sandbox/2.log" || complain 'the damage is not named'
	start 1
	start 3
	drain bad 1 3
	judge bad
	mv "$sandbox/2/journal.0" "$sandbox/2/journal.bad"
	start 2
	until_true "$READY_S" all_are_in bad || complain 'node 2 is not filled'
	# Now it has a say: with it and one more the next outage is over.
	load filled
	power_off
	start 2
	start 3
	drain filled 2 3
	judge filled
	start 1
	until_true "$READY_S" all_are_in filled || complain 'node 1 is not in'
}

all_are_on_disk() {
	(inside timeout 10 "$petal" rings --json --dir "$sandbox/1") |
		python3 -c '
import json, sys
ring = [r for r in json.load(sys.stdin)["rings"] if r["name"] == sys.argv[1]][0]
sys.exit(ring["levels"]["disk3"] < ring["levels"]["local"])' "$1"
}

# One disk goes on by an operator's word alone. Here it has what was
# acknowledged, for the load had ended before the power did.
one_disk_waits_for_an_operator() {
	load alone
	kill -TERM "$client_pid"
	wait "$client_pid" 2>/dev/null || :
	until_true "$READY_S" all_are_on_disk alone ||
		complain 'the disks do not come to rest'
	power_off
	rm "$sandbox/2/journal.0"
	start 1
	recovers alone 1 'registry has no leader'
	start 2
	until_true "$READY_S" says_of_recovery alone 1 'two disks are needed' ||
		complain "petal recover says: $(cat "$sandbox/answer")"
	stays_closed alone
	recovers alone 1 'ring alone is open here' --accept-loss
	((status == 0)) || complain "--accept-loss: exit $status"
	grep -q 'an operator accepts the loss' "$sandbox/1.log" ||
		complain 'it is not in the log'
	drain alone 1 2
	judge alone
	start 3
	until_true "$READY_S" all_are_in alone || complain 'node 3 is not in'
}

make_key "$sandbox/key"
for node in 1 2 3; do
	write_config "$node"
	start "$node"
done
for ((round = 0; round < ROUNDS; round++)); do
	any_two_disks_are_enough "$round"
done
the_power_goes_again_and_again
new_disk_has_no_say
damaged_journal_is_named_and_filled_anew
one_disk_waits_for_an_operator
for node in 1 2 3; do
	kill -TERM "${pid_of[$node]}"
	status=0
	wait "${pid_of[$node]}" || status=$?
	((status == 0)) || complain "node $node ended with $status"
done
nothing_left "the end"
