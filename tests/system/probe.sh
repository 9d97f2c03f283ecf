#!/bin/bash
# petal probe between two processes: what it says of the providers that are
# here and those that are not, who it refuses to talk to, and that all of it
# ends. And petald, which does not start with a provider that fails.
#
#   tests/system/probe.sh PETAL LIAR

set -euo pipefail

petal=${1:?the petal program}
liar=${2:?the provider of tests/liar}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"

LIMIT_S=60
failures=0

complain() {
	echo "probe: $*" >&2
	failures=$((failures + 1))
}

# write_config NAME CLUSTER PROVIDER: $sandbox/NAME.conf with a key of its own.
write_config() {
	[[ -f $sandbox/$2.key ]] || (
		umask 077
		od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
		echo
	) >"$sandbox/$2.key"
	chmod 600 "$sandbox/$2.key"
	cat >"$sandbox/$1.conf" <<-END
		[petal]
		cluster = $2
		node = 1
		dir = $sandbox/$1
		key = $sandbox/$2.key
		provider = $3
		journal_bytes = 16M

		[node 1]
		name = a
		domain = here
		fabric = 127.0.0.1:$(free_port)
		registry = 127.0.0.1:$(free_port)
	END
}

free_port() {
	python3 -c '
import socket
with socket.create_server(("127.0.0.1", 0)) as s:
    print(s.getsockname()[1])'
}

# run COMMAND...: keeps stdout, stderr and the status.
run() {
	status=0
	(inside timeout -k 5 "$LIMIT_S" "$@") </dev/null \
		>"$sandbox/stdout" 2>"$sandbox/stderr" || status=$?
}

# says WHAT STATUS WORD...: the last run ended so, and its answer has the words.
says() {
	local what=$1 word
	((status == $2)) ||
		complain "$what: exit $status, not $2: $(cat "$sandbox/stderr")"
	shift 2
	for word; do
		grep -qF -- "$word" "$sandbox/stdout" || complain \
			"$what: does not say '$word': $(cat "$sandbox/stdout")"
	done
	[[ ! -s $sandbox/stderr ]] ||
		complain "$what: complained: $(cat "$sandbox/stderr")"
}

# refused WHAT STATUS WORD: one sentence on stderr, no answer.
refused() {
	((status == $2)) || complain "$1: exit $status, not $2"
	(($(wc -l <"$sandbox/stderr") == 1)) ||
		complain "$1: not one sentence: $(cat "$sandbox/stderr")"
	grep -qF -- "$3" "$sandbox/stderr" ||
		complain "$1: does not name '$3': $(cat "$sandbox/stderr")"
	[[ ! -s $sandbox/stdout ]] ||
		complain "$1: an answer for an error: $(cat "$sandbox/stdout")"
}

has_address() {
	grep -q '^answers at ' "$sandbox/listener.out"
}

# Sets $listener, its pid, and $address.
listen() {
	(inside "$petal" probe --config "$sandbox/good.conf" \
		--listen 127.0.0.1:0) </dev/null \
		>"$sandbox/listener.out" 2>"$sandbox/listener.err" &
	listener=$!
	until_true 30 has_address ||
		fail "nobody answers: $(cat "$sandbox/listener.err")"
	address=$(sed -n 's/^answers at \([^ ]*\) .*/\1/p' \
		"$sandbox/listener.out")
}

listener_ends_when_asked() {
	local ended=0
	kill -TERM "$listener"
	wait "$listener" || ended=$?
	((ended == 0)) || complain "the one who answers: exit $ended"
	[[ ! -s $sandbox/listener.err ]] || complain \
		"the one who answers complained: $(cat "$sandbox/listener.err")"
}

probe() {
	run "$petal" probe --config "$sandbox/good.conf" "$@"
}

tcp_keeps_every_level() {
	probe --provider tcp "$address"
	says tcp 0 'provider tcp' 'none, local, mem2, mem3, disk2, disk3' \
		'P1 landed  passed' 'P2 fenced  passed' 'P3 whole   passed' \
		'P4 again   passed' 'P5 asleep  passed'
}

every_provider_has_its_line() {
	local name
	probe "$address"
	says 'all providers' 0 'provider tcp'
	for name in verbs net sockets shm efa cxi opx; do
		(($(grep -c "^provider $name " "$sandbox/stdout") == 1)) ||
			complain "not one line about $name"
	done
	# Of one that cannot be tried there is that line and nothing else.
	grep -A1 '^provider shm ' "$sandbox/stdout" | grep -q '^  P1' &&
		complain 'shm was tried, without connections'
	grep -q '^provider opx *not' "$sandbox/stdout" ||
		echo 'probe: there is an opx here; it was tried'
}

json_is_one_object() {
	probe --json --provider tcp --provider pigeon "$address"
	says json 1 '"peer"'
	python3 - "$sandbox/stdout" "$address" <<'END' || complain 'wrong json'
import json, sys
with open(sys.argv[1]) as f:
    lines = f.read().splitlines()
assert len(lines) == 1, lines
answer = json.loads(lines[0])
assert answer["peer"] == sys.argv[2]
tcp, pigeon = answer["providers"]
assert tcp["provider"] == "tcp" and tcp["here"] is True
assert tcp["refused"] is None and tcp["completions"] is True
assert tcp["levels"] == ["none", "local", "mem2", "mem3", "disk2", "disk3"]
assert sorted(tcp["checks"]) == ["P1", "P2", "P3", "P4", "P5"]
assert all(check["passed"] and check["seen"] for check in tcp["checks"].values())
assert pigeon["here"] is False and pigeon["levels"] == ["none", "local"]
assert "checks" not in pigeon and "not here" in pigeon["refused"]
END
}

wrong_provider_is_not_here() {
	probe --provider pigeon "$address"
	says pigeon 1 'provider pigeon' 'not here'
}

wrong_peers_are_named() {
	write_config other other tcp
	run "$petal" probe --config "$sandbox/other.conf" "$address"
	refused 'another cluster' 1 "$address"
	probe "127.0.0.1:$(free_port)"
	refused 'nobody there' 1 '127.0.0.1:'
	probe --listen "$address"
	refused 'a port in use' 1 "$address"
	# A petald of the same cluster and key is no answer.
	(inside "$petald" --config "$sandbox/good.conf") </dev/null \
		2>"$sandbox/node.err" &
	node=$!
	until_true 30 test -S "$sandbox/good/petald.sock" ||
		complain "petald does not run: $(cat "$sandbox/node.err")"
	probe "$(sed -n 's/^fabric = //p' "$sandbox/good.conf")"
	refused 'a petald' 1 'petal probe --listen'
	kill -TERM "$node"
	wait "$node" || complain "petald: $(cat "$sandbox/node.err")"
}

usage_is_checked() {
	run "$petal" probe "$address"
	refused 'no configuration' 2 --config
	probe
	refused 'neither side' 2 --listen
	probe --listen 127.0.0.1:0 "$address"
	refused 'both sides' 2 --listen
	probe --seconds 0 --listen 127.0.0.1:0
	refused 'no time' 2 --seconds
	probe --listen here
	refused 'listening at no address' 2 "'here'"
	probe there:7301
	refused 'asking no address' 2 "'there:7301'"
	run "$petal" probe --config "$sandbox/none.conf" "$address"
	refused 'no such file' 1 none.conf
	run "$petal" probe --help
	says help 0 'Usage: petal probe'
}

answering_ends_by_itself() {
	run "$petal" probe --config "$sandbox/good.conf" \
		--listen 127.0.0.1:0 --seconds 1
	says 'one second' 0 'for 1 s'
}

# Nothing is made or changed by a node that does not start.
petald_refuses_a_provider_that_fails() {
	export FI_PROVIDER_PATH=${liar%/*}
	write_config lying good liar
	PETAL_LIAR=lost run "$petald" --config "$sandbox/lying.conf"
	refused 'a provider that loses' 1 \
		"'liar' cannot keep mem2, mem3, disk2 and disk3"
	PETAL_LIAR=torn run "$petald" --config "$sandbox/lying.conf"
	refused 'a provider that tears' 1 "'liar' cannot keep"
	[[ ! -e $sandbox/lying ]] || complain 'a refused node left a directory'
	unset FI_PROVIDER_PATH
	write_config gone good liar
	run "$petald" --config "$sandbox/gone.conf"
	refused 'a provider that is gone' 1 "no provider 'liar'"
	write_config shared good shm
	run "$petald" --config "$sandbox/shared.conf"
	refused 'a provider without connections' 1 "'shm' has no connections"
	[[ ! -e $sandbox/gone && ! -e $sandbox/shared ]] ||
		complain 'a refused node left a directory'
}

write_config good good tcp
listen
tcp_keeps_every_level
every_provider_has_its_line
json_is_one_object
wrong_provider_is_not_here
wrong_peers_are_named
usage_is_checked
listener_ends_when_asked
answering_ends_by_itself
petald_refuses_a_provider_that_fails
nothing_left "the end"
((failures == 0)) || fail "$failures complaint(s)"
