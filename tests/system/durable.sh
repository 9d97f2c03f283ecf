#!/bin/bash
# Three nodes, as an operator runs them: the example against a durable ring,
# what petal says of it, a backup killed and back, a primary that comes back
# without its memory and finds another in its place, an orderly end; and what petald refuses to start with.
#
#   tests/system/durable.sh PETAL EXAMPLE CLIENT

set -euo pipefail

petal=${1:?the petal program}
example=${2:?the program of examples/03-durable.c}
client=${3:?the program of system/churn.c}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"
# shellcheck source=tests/system/nodes.sh
source "$here/nodes.sh"

LIMIT_S=60
NODES_MORE='stall_ms = 300'
failures=0
same_host=(--allow-same-host)

complain() {
	echo "durable: $*" >&2
	failures=$((failures + 1))
}

# Asks a node to end: exit 0, and no socket.
stop() {
	local status=0
	[[ -S $sandbox/$1/petald.sock ]] || complain "node $1 has no socket"
	kill -TERM "${pid_of[$1]}"
	wait "${pid_of[$1]}" || status=$?
	((status == 0)) || complain "node $1 ended with $status"
	[[ ! -e $sandbox/$1/petald.sock ]] ||
		complain "node $1 left its socket"
}

# look NODE COMMAND...: petal's answer in $sandbox/answer, its exit code here.
look() {
	local node=$1
	shift
	(inside timeout "$LIMIT_S" "$petal" "$@" --dir "$sandbox/$node") \
		>"$sandbox/answer" 2>"$sandbox/errors"
}

says() {
	grep -qE -- "$1" "$sandbox/answer" ||
		complain "expected '$1' in: $(cat "$sandbox/answer")"
}

# ask NODE JSON: one request by the node's socket; prints the answer.
ask() {
	python3 - "$sandbox/$1/petald.sock" "$2" <<'END'
import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
    s.settimeout(20)
    s.connect(sys.argv[1])
    s.send(sys.argv[2].encode())
    print(s.recv(65536).decode())
END
}

# answers NODE JSON WORD: the answer contains the word.
answers() {
	local answer
	answer=$(ask "$1" "$2")
	[[ $answer == *"$3"* ]] ||
		complain "node $1, asked $2, answers $answer, not $3"
}

# members NODE RING STATE...: as petal rings --json has them, in any order.
members() {
	local node=$1 ring=$2
	shift 2
	# 1 says that a member is away, which may be what is expected.
	look "$node" rings --json || (($? == 1)) || return 1
	python3 - "$sandbox/answer" "$ring" "$@" <<'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    rings = json.load(file)["rings"]
found = [sorted(member["state"] for member in ring["members"])
         for ring in rings if ring["name"] == sys.argv[2]]
sys.exit(0 if found == [sorted(sys.argv[3:])] else 1)
END
}

make_ring='{"op": "ring-create", "name": "kept", "data_bytes": 1048576,
	"queues": [{"name": "q", "lease_ns": 1000000000}]}'

# The registry may still be electing, and the nodes meeting.
ring_is_made() {
	[[ $(ask 1 "$make_ring") == *'"ok":true'* ]]
}

example_runs() {
	local status=0 step
	(inside timeout "$LIMIT_S" "$example" "$sandbox/1") \
		>"$sandbox/answer" 2>"$sandbox/errors" || status=$?
	((status == 0)) || {
		complain "the example: exit $status:" \
			"$(cat "$sandbox/answer" "$sandbox/errors")"
		return
	}
	for step in attach request create open send publish outcome release \
		forward own worker clerk drain list delete; do
		says "^$step "
	done
	says '^send +disk3 +lsn 7 '
}

status_shows_three_nodes_and_no_rings() {
	look 1 status || complain "petal status: $(cat "$sandbox/errors")"
	says '^3 +n3 +rack-3 +127.0.0.1:[0-9]+ +up$'
	says '^journal  '
	says '^no rings$'
	look 1 status --json || complain "petal status --json"
	python3 - "$sandbox/answer" <<'END' || complain "status --json is wrong"
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    status = json.load(file)
assert [n["up"] for n in status["nodes"]] == [True] * 3, status["nodes"]
assert status["wire"]["provider"] == "tcp", status["wire"]
assert status["registry"]["leader"] in (1, 2, 3), status["registry"]
assert status["journal"]["batches"] > 0, status["journal"]
assert not status["journal"]["frozen"], status["journal"]
assert status["rings"] == [], status["rings"]
END
}

socket_refuses_what_makes_no_sense() {
	answers 1 '{"op": "hello", "version": 1, "id": 7}' '"id":7'
	answers 1 '{"op": "hello", "version": 2}' -5001
	answers 1 'not JSON' -5000
	answers 1 '{"op": "sing"}' 'no such operation'
	answers 1 '{"op": "ring-open", "name": "none"}' 'no such ring'
	answers 1 '{"op": "ring-create", "name": "a b"}' 'name is'
	answers 1 '{"op": "ring-create", "name": "a", "data_bytes": 65537}' \
		'power of two'
	answers 1 "${make_ring//\"q\"/\"a\/b\"}" 'name of its own'
	answers 1 '{"op": "ring-create", "name": "a", "data_bytes": 65536,
		"queues": [{"name": "q", "lease_ns": 1},
			   {"name": "q", "lease_ns": 1}]}' 'name of its own'
}

# Whoever has it open is told by its completion fd, and is not in the way of
# the next ring of that name.
ring_deleted_elsewhere_ends_where_it_is_open() {
	until_true "$READY_S" ring_is_made || fail "cannot make a ring"
	python3 - "$sandbox/1/petald.sock" "$sandbox/2/petald.sock" \
		"$make_ring" <<'END' || complain "deleted elsewhere: see above"
import json
import select
import socket
import sys
import time


def connect(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect(path)
    return s


def ask(s, text):
    s.send(text.encode())
    data, fds, _, _ = socket.recv_fds(s, 65536, 4)
    return json.loads(data), fds


here, there = connect(sys.argv[1]), connect(sys.argv[2])
make = sys.argv[3]
opened, fds = ask(here, '{"op": "ring-open", "name": "kept"}')
assert opened["ok"] and len(fds) == 3, opened
delete = '{"op": "ring-delete", "name": "kept"}'
assert ask(here, delete)[0]["error"] == -16
end = time.monotonic() + 20
# The other node's registry may hear of the ring a little later.
while not (gone := ask(there, delete)[0])["ok"] and time.monotonic() < end:
    assert gone["error"] == -2, gone
assert gone["ok"], gone
assert select.select([fds[2]], [], [], 20)[0], "nobody was told"
end = time.monotonic() + 20
while not (made := ask(here, make)[0])["ok"] and time.monotonic() < end:
    pass
assert made["ok"], made
assert ask(here, delete)[0]["ok"]
END
}

rings_come_and_go_beside_others() {
	(inside timeout "$LIMIT_S" "$client" "$sandbox/1") \
		2>"$sandbox/errors" || complain "$(cat "$sandbox/errors")"
}

record_larger_than_a_ring_is_refused() {
	(inside timeout "$LIMIT_S" "$client" "$sandbox/1" short) \
		2>"$sandbox/errors" || complain "$(cat "$sandbox/errors")"
}

# As many rings as a node keeps, and one more; the answer that lists them all.
node_keeps_so_many_rings() {
	local queues='' n answer
	for n in 1 2 3 4 5 6 7 8; do
		queues+=",{\"name\": \"q$n\", \"slots\": 2, \"lease_ns\": 1}"
	done
	for ((n = 0; n < 32; n++)); do
		answer=$(ask 1 '{"op": "ring-create", "name": "many'$n'",
			"data_bytes": 65536, "queues": ['"${queues:1}"']}')
		[[ $answer == *'"ok":true'* ]] ||
			complain "ring $n of 32: $answer"
	done
	answers 1 '{"op": "ring-create", "name": "more", "data_bytes": 65536}' \
		'as many rings'
	look 1 status --json || complain "status of 32 rings"
	for ((n = 0; n < 32; n++)); do
		answers 1 '{"op": "ring-delete", "name": "many'$n'"}' '"ok":true'
	done
}

rested() {
	awk '{print $14 + $15}' "/proc/${pid_of[1]}/stat"
}

# 100 ticks a second: a quarter of one CPU is far more than what is needed.
shortest_lease_does_not_spin() {
	local before
	answers 1 "${make_ring//1000000000/1}" '"ok":true'
	before=$(rested)
	sleep 1
	(($(rested) - before < 25)) || complain "a lease of 1 ns keeps a CPU"
	answers 1 '{"op": "ring-delete", "name": "kept"}' '"ok":true'
}

# A node that is killed when a ring has been deleted finds the ring's batches in
# its journal, but no ring: they are let go with the next batch.
batches_of_a_deleted_ring_are_let_go() {
	(inside timeout "$LIMIT_S" "$client" "$sandbox/1" leave) \
		2>"$sandbox/errors" || complain "$(cat "$sandbox/errors")"
	answers 1 '{"op": "ring-delete", "name": "left"}' '"ok":true'
	until_true "$READY_S" node_has_no_rings 3 ||
		fail "node 3 does not hear of a deletion"
	kill -KILL "${pid_of[3]}"
	wait "${pid_of[3]}" 2>/dev/null || :
	start 3
	until_true "$READY_S" next_batch_frees 3 ||
		complain "a deleted ring is still in the journal of node 3"
}

node_has_no_rings() {
	look "$1" rings && grep -q '^no rings$' "$sandbox/answer"
}

next_batch_frees() {
	until_true "$READY_S" ring_is_made || fail "cannot make a ring"
	answers 1 '{"op": "ring-delete", "name": "kept"}' '"ok":true'
	look "$1" status --json || (($? == 1)) || return 1
	python3 - "$sandbox/answer" <<'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    sys.exit(json.load(file)["journal"]["used_bytes"] > 32768)
END
}

rings_show_their_members() {
	until_true "$READY_S" ring_is_made || fail "cannot make a ring"
	answers 2 "$make_ring" -17
	until_true "$READY_S" members 1 kept self in in ||
		fail "its members are never in: $(cat "$sandbox/answer")"
	look 1 rings || complain "petal rings: $(cat "$sandbox/errors")"
	says '^ring kept: .* its primary, members .*1 self'
	says '^  q +0 +0 +0 +0 +0$'
	until_true "$READY_S" members 3 kept up up self ||
		complain "a backup's look: $(cat "$sandbox/answer")"
	answers 2 '{"op": "ring-open", "name": "kept"}' 'primary is node 1'
}

stopped_producer_holds_back_for_a_while_only() {
	(inside timeout "$LIMIT_S" "$client" "$sandbox/1" stop) \
		2>"$sandbox/errors" || complain "$(cat "$sandbox/errors")"
	grep -q "goes on in epoch 2 without a record that process [1-9]" \
		"$sandbox/1.log" || complain "node 1 does not say who stopped"
}

killed_backup_comes_back_in() {
	kill -KILL "${pid_of[3]}"
	wait "${pid_of[3]}" 2>/dev/null || :
	until_true "$READY_S" members 1 kept self in away ||
		fail "nobody misses a killed backup"
	! look 1 rings || complain "petal rings finds nothing wrong"
	says '3 away'
	! look 1 status || complain "petal status finds nothing wrong"
	says '^3 .* AWAY$'
	start 3
	until_true "$READY_S" members 1 kept self in in ||
		fail "a killed backup does not come back: $(cat "$sandbox/answer")"
	look 1 rings || complain "petal rings does not see it back"
	example_runs
}

open_ring='{"op": "ring-open", "name": "kept"}'

opens_elsewhere() {
	[[ $(ask 2 "$open_ring")$(ask 3 "$open_ring") == *'"ok":true'* ]]
}

primary_without_its_memory_is_followed_by_another() {
	stop 1
	start 1
	until_true "$READY_S" opens_elsewhere ||
		complain "nobody followed: $(cat "$sandbox"/?.log)"
	until_true "$READY_S" members 1 kept self up up ||
		complain "the ring is not known: $(cat "$sandbox/answer")"
	answers 1 "$open_ring" 'primary is node'
	answers 1 '{"op": "ring-delete", "name": "kept"}' '"ok":true'
	answers 1 '{"op": "ring-delete", "name": "kept"}' 'no such ring'
	example_runs
}

# refused WHAT WORD [NODE]: a node does not start, in one sentence of the word.
refused() {
	local what=$1 word=$2 node=${3:-1} status=0
	(inside timeout "$LIMIT_S" "$petald" --config "$sandbox/$node.conf" \
		"${same_host[@]}") \
		</dev/null >"$sandbox/answer" 2>"$sandbox/errors" || status=$?
	((status == 1)) || complain "$what: exit $status, not 1"
	(($(wc -l <"$sandbox/errors") == 1)) ||
		complain "$what: not one sentence: $(cat "$sandbox/errors")"
	grep -qF -- "$word" "$sandbox/errors" ||
		complain "$what: does not name '$word': $(cat "$sandbox/errors")"
	[[ ! -s $sandbox/answer ]] || complain "$what: spoke on stdout"
}

# mistaken WHAT WORD SED: the same with a changed configuration.
mistaken() {
	sed -i "$3" "$sandbox/1.conf"
	refused "$1" "$2"
	write_config 1
}

configuration_is_checked() {
	mistaken 'no section of its own' 'no [node N]' 's/^node = 1/node = 9/'
	mistaken 'node 0' "node is '0'" 's/^node = 1/node = 0/'
	mistaken 'no key' "'key'" '/^key/d'
	mistaken 'half a node' '[node 2]' '/^name = n2/d'
	mistaken 'two of one name' 'same name' 's/^name = n2/name = n3/'
	mistaken 'two fabric addresses' 'same fabric address' \
		"s/^fabric = .*:${ports[1]}/fabric = 127.0.0.1:${ports[2]}/"
	mistaken 'two registry addresses' 'same registry address' \
		"s/^registry = .*:${ports[4]}/registry = 127.0.0.1:${ports[5]}/"
	mistaken 'a small journal' journal_bytes \
		's/^journal_bytes.*/journal_bytes = 4K/'
	mistaken 'one beat' '2 to 1000' \
		's/^suspect_beats.*/suspect_beats = 1/'
	mistaken 'no line at all' 'line 3' 's/^node = 1/node/'
	mistaken 'a section of nothing' pearl 's/^\[node 2\]/[pearl]/'
	mistaken 'a provider of nothing' pigeon 's/^provider.*/provider = pigeon/'
	same_host=()
	mistaken 'members on one host' '--allow-same-host' ''
	same_host=(--allow-same-host)
}

# Nothing is changed by what is refused.
contents() {
	find "$sandbox/1" -type f -print0 | sort -z | xargs -0 sha256sum
}

key_is_for_its_owner_alone() {
	chmod 644 "$sandbox/key"
	refused 'a readable key' 'chmod 600'
	chmod 600 "$sandbox/key"
	mv "$sandbox/key" "$sandbox/good-key"
	refused 'no key file' "$sandbox/key"
	(
		umask 077
		echo short >"$sandbox/key"
	)
	refused 'half a key' 'hexadecimal'
	mv -f "$sandbox/good-key" "$sandbox/key"
}

directory_belongs_to_one_node_of_one_cluster() {
	refused 'a second petald' 'another petald' 2
	mistaken 'another cluster' 'another cluster' \
		's/^cluster.*/cluster = other/'
	mistaken 'another size' journal_bytes \
		's/^journal_bytes.*/journal_bytes = 32M/'
	contents | diff "$sandbox/before" - >&2 ||
		complain 'a refused node changed a file'
	mistaken 'other nodes' 'another list of nodes' \
		"s/^registry = .*:${ports[5]}/registry = 127.0.0.1:1/"
}

make_key "$sandbox/key"
for node in 1 2 3; do
	write_config "$node"
	start "$node"
done
example_runs
status_shows_three_nodes_and_no_rings
socket_refuses_what_makes_no_sense
ring_deleted_elsewhere_ends_where_it_is_open
rings_come_and_go_beside_others
record_larger_than_a_ring_is_refused
node_keeps_so_many_rings
shortest_lease_does_not_spin
batches_of_a_deleted_ring_are_let_go
stopped_producer_holds_back_for_a_while_only
rings_show_their_members
killed_backup_comes_back_in
primary_without_its_memory_is_followed_by_another
stop 1
contents >"$sandbox/before"
configuration_is_checked
key_is_for_its_owner_alone
directory_belongs_to_one_node_of_one_cluster
stop 2
stop 3
nothing_left "the end"
((failures == 0)) || fail "$failures complaint(s)"
