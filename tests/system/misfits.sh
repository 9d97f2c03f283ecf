#!/bin/bash
# Three nodes that run, and those who do not fit: a second petal of one's
# identity, two nodes that turn out to be on one host, a node whose clock jumps
# by hours. Who does not fit is told, in one sentence; the others go on.
#
#   tests/system/misfits.sh PETAL JUMP

set -euo pipefail

petal=${1:?the petal program}
jump=${2:?the library of tests/jump}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"

LIMIT_S=60
READY_S=30
HOURS_S=18000
failures=0
declare -A pid_of

complain() {
	echo "misfits: $*" >&2
	failures=$((failures + 1))
}

read -ra ports < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
print(*(s.getsockname()[1] for s in held))')

(
	umask 077
	od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
	echo
) >"$sandbox/key"
chmod 600 "$sandbox/key"

# write_config NAME NODE FABRIC-OF-1 REGISTRY-OF-1 HOST-OF-2 NODES
write_config() {
	local node
	{
		cat <<-END
			[petal]
			cluster = misfits
			node = $2
			dir = $sandbox/$1
			key = $sandbox/key
			journal_bytes = 16M
			heartbeat_ms = 100
			suspect_beats = 50
		END
		for ((node = 1; node <= $6; node++)); do
			cat <<-END

				[node $node]
				name = n$node
				domain = rack-$node
			END
			case $node in
			1) echo "fabric = $3" && echo "registry = $4" ;;
			2) echo "fabric = $5:${ports[1]}" &&
				echo "registry = $5:${ports[4]}" ;;
			3) echo "fabric = 127.0.0.1:${ports[2]}" &&
				echo "registry = 127.0.0.1:${ports[5]}" ;;
			esac
		done
	} >"$sandbox/$1.conf"
}

# start NAME [OPTION...]: returns when it says that it is ready.
start() {
	local name=$1 word='' fifo=$sandbox/$1.ready
	shift
	[[ -p $fifo ]] || mkfifo "$fifo"
	(inside env "${with[@]}" "$petald" --config "$sandbox/$name.conf" \
		--ready-fd 3 "$@") \
		3>"$fifo" 2>>"$sandbox/$name.log" </dev/null &
	pid_of[$name]=$!
	read -r -t "$READY_S" word <"$fifo" || :
	[[ $word == ready ]] ||
		fail "node $name did not get ready: $(cat "$sandbox/$name.log")"
}
with=(LC_ALL=C)

stop() {
	local status=0
	kill -TERM "${pid_of[$1]}"
	wait "${pid_of[$1]}" || status=$?
	((status == 0)) || complain "node $1: exit $status when stopped"
}

has_ended() {
	! kill -0 "${pid_of[$1]}" 2>/dev/null
}

# gives_up NAME WORD: it ends by itself, with status 1 and the word.
gives_up() {
	local status=0
	until_true "$READY_S" has_ended "$1" || {
		complain "$1 goes on: $(cat "$sandbox/$1.log")"
		kill -KILL "${pid_of[$1]}"
	}
	wait "${pid_of[$1]}" || status=$?
	((status == 1)) || complain "$1: exit $status, not 1"
	says_in_log "$1" "$2"
}

says_in_log() {
	grep -qF -- "$2" "$sandbox/$1.log" ||
		complain "$1 does not say '$2': $(cat "$sandbox/$1.log")"
}

look() {
	local node=$1
	shift
	(inside timeout "$LIMIT_S" "$petal" "$@" --dir "$sandbox/$node") \
		>"$sandbox/answer" 2>"$sandbox/errors"
}

# Every node sees every other, and every ring has all of its members.
all_is_well() {
	local node
	for node in 1 2 3; do
		look "$node" status || return 1
	done
}

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

make_ring='{"op": "ring-create", "name": "kept", "data_bytes": 1048576,
	"queues": [{"name": "q", "lease_ns": 1000000000}]}'

ring_is_made() {
	[[ $(ask 1 "$make_ring") == *'"ok":true'* ||
		$(ask 1 "$make_ring") == *'-17'* ]]
}

# jump_by SECONDS: the time of day of node 3.
jump_by() {
	python3 -c '
import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.write(struct.pack("=q", int(sys.argv[2])))' "$sandbox/jump" "$1"
}

# What node 1 has counted of node 3's times, refused.
refused_clocks() {
	look 1 status --json || (($? == 1))
	python3 -c '
import json, sys
print(json.load(open(sys.argv[1]))["wire"]["refused_clock"])' "$sandbox/answer"
}

# second_petal NAME NODE SED: of a node that runs, elsewhere by its own account.
second_petal() {
	local name=$1 node=$2
	write_config "$name" "$node" "127.0.0.1:${ports[0]}" \
		"127.0.0.1:${ports[3]}" 127.0.0.1 3
	sed -i "$3" "$sandbox/$name.conf"
	start "$name" --allow-same-host
	gives_up "$name" 'two petals with one identity'
	until_true "$READY_S" all_is_well ||
		complain "the three are not well: $(cat "$sandbox/answer")"
	grep -qhF "a node $node that listens at '127.0.0.1:${ports[6]}'" \
		"$sandbox"/[123].log ||
		complain "nobody says that a second node $node was refused"
	! has_ended "$node" || complain "the first node $node has ended"
}

# The one that is called, and the one that calls.
second_petal_of_one_identity_is_told_and_ends() {
	second_petal called 1 "s/:${ports[0]}$/:${ports[6]}/;
		s/:${ports[3]}$/:${ports[7]}/"
	second_petal caller 3 "s/:${ports[2]}$/:${ports[6]}/;
		s/:${ports[5]}$/:${ports[7]}/"
}

clock_that_jumps_changes_nothing_for_those_who_run() {
	local by
	for by in $HOURS_S -$HOURS_S; do
		jump_by "$by"
		all_is_well || complain "a jump by $by s: $(cat "$sandbox/answer")"
		# Node 3 has to call again, with the clock that it has now.
		stop 1
		start 1 --allow-same-host
		until_true "$READY_S" all_is_well || complain \
			"not together after a jump by $by s: $(cat "$sandbox"/?.log)"
	done
	! grep -qF 'is refused, for its clock' "$sandbox"/[12].log ||
		complain "refused for a jump: $(cat "$sandbox"/[12].log)"
}

sees_node_3() {
	look 1 status --json || (($? == 1)) || return 1
	python3 -c '
import json, sys
up = {n["node"]: n["up"] for n in json.load(open(sys.argv[1]))["nodes"]}
sys.exit(0 if up[3] else 1)' "$sandbox/answer"
}

clock_is_named() {
	grep -qF 'node 3 is refused, for its clock is' "$sandbox/1.log"
}

node_that_starts_hours_off_is_refused_until_it_is_mended() {
	stop 3
	jump_by "$HOURS_S"
	start 3 --allow-same-host
	until_true "$READY_S" clock_is_named ||
		complain "nobody names the clock: $(cat "$sandbox/1.log")"
	says_in_log 1 's ahead of ours, expected the same within 30 s'
	! sees_node_3 || complain 'a node of another time is let in'
	(($(refused_clocks) > 0)) || complain 'refused clocks are not counted'
	jump_by 0
	until_true "$READY_S" all_is_well ||
		complain "not together when mended: $(cat "$sandbox"/?.log)"
}

# An address of this machine that is not the loopback's, if there is one.
other_address() {
	python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.connect(("192.0.2.200", 9))
    address = s.getsockname()[0]
    socket.create_server((address, 0)).close()
    print("" if address.startswith("127.") else address)
except OSError:
    print("")'
}

# Their addresses do not tell; they do, when they meet.
nodes_that_meet_on_one_host_end() {
	local other name
	other=$(other_address)
	[[ $other ]] || {
		echo 'misfits: not tried: this machine has no address but 127.0.0.1'
		return
	}
	for name in here there; do
		write_config "$name" "$([[ $name == here ]] && echo 1 || echo 2)" \
			"127.0.0.1:${ports[6]}" "127.0.0.1:${ports[7]}" \
			"$other" 2
	done
	start here
	start there
	gives_up here 'runs on our host'
	gives_up there 'runs on our host'
}

for node in 1 2 3; do
	write_config "$node" "$node" "127.0.0.1:${ports[0]}" \
		"127.0.0.1:${ports[3]}" 127.0.0.1 3
done
head -c 8 /dev/zero >"$sandbox/jump"
start 1 --allow-same-host
start 2 --allow-same-host
with=(LC_ALL=C LD_PRELOAD="$jump" PETAL_JUMP="$sandbox/jump"
	ASAN_OPTIONS=verify_asan_link_order=0)
start 3 --allow-same-host
with=(LC_ALL=C)
until_true "$READY_S" ring_is_made ||
	fail "no ring: $(ask 1 "$make_ring")"
until_true "$READY_S" all_is_well || fail "no fabric: $(cat "$sandbox/answer")"
second_petal_of_one_identity_is_told_and_ends
clock_that_jumps_changes_nothing_for_those_who_run
with=(LC_ALL=C LD_PRELOAD="$jump" PETAL_JUMP="$sandbox/jump"
	ASAN_OPTIONS=verify_asan_link_order=0)
node_that_starts_hours_off_is_refused_until_it_is_mended
with=(LC_ALL=C)
for node in 1 2 3; do
	stop "$node"
done
nodes_that_meet_on_one_host_end
nothing_left "the end"
((failures == 0)) || fail "$failures complaint(s)"
