# Sourced after sandbox.sh by the tests of nodes on this machine: how they are
# configured, started and ended. The cluster has the test's name.
#
# Needs $petald, the program. NODES_COUNT, if not three, is set before; and
# before write_config NODES_ELECTION_MS, NODES_JOURNAL (its bytes), and
# NODES_MORE, lines of the section [petal]. Descriptors 4 and 5 are the test's own: no node inherits them.
# shellcheck shell=bash disable=SC2154

READY_S=30
declare -A pid_of

NODES_COUNT=${NODES_COUNT:-3}

# Two ports for each that are free just now; held together, so that they differ.
read -ra ports < <(python3 -c '
import socket
import sys
held = [socket.create_server(("127.0.0.1", 0))
        for _ in range(2 * int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))' "$NODES_COUNT")

make_key() {
	(
		umask 077
		od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
		echo
	) >"$1"
	chmod 600 "$1"
}

# write_config NODE: $sandbox/NODE.conf, for the directory $sandbox/NODE.
write_config() {
	local node
	{
		cat <<-END
			[petal]
			cluster = $(basename "$0" .sh)
			node = $1
			dir = $sandbox/$1
			key = $sandbox/key
			provider = tcp
			journal_bytes = ${NODES_JOURNAL:-16M}
			heartbeat_ms = 100
			suspect_beats = 50
			election_ms = ${NODES_ELECTION_MS:-300}
			${NODES_MORE:-}
		END
		for ((node = 1; node <= NODES_COUNT; node++)); do
			cat <<-END

				[node $node]
				name = n$node
				domain = rack-$node
				fabric = 127.0.0.1:${ports[node - 1]}
				registry = 127.0.0.1:${ports[node + NODES_COUNT - 1]}
			END
		done
	} >"$sandbox/$1.conf"
}

# launch NODE: starts it; whether it says that it is ready.
launch() {
	local word='' fifo=$sandbox/$1.ready
	[[ -p $fifo ]] || mkfifo "$fifo"
	(inside "$petald" --config "$sandbox/$1.conf" --allow-same-host \
		--ready-fd 3) \
		3>"$fifo" 4>&- 5>&- 2>>"$sandbox/$1.log" </dev/null &
	pid_of[$1]=$!
	read -r -t "$READY_S" word <"$fifo" || :
	[[ $word == ready ]]
}

# Starts a node and returns when it says that it is ready.
start() {
	launch "$1" ||
		fail "node $1 did not get ready: $(cat "$sandbox/$1.log")"
}

# killed NODE...: as when the power goes, and all of them at once.
killed() {
	local node
	for node in "$@"; do
		kill -KILL "${pid_of[$node]}" 2>/dev/null || :
	done
	for node in "$@"; do
		wait "${pid_of[$node]}" 2>/dev/null || :
	done
}
