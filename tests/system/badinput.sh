#!/bin/bash
# What is wrong is named: one sentence on stderr, exit 1 (the fabric) or 2
# (the usage), nothing left running and nothing half-written.
#
#   tests/system/badinput.sh PETAL

set -euo pipefail

petal=${1:?the petal program}
petald=${petal%/*}/petald
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/system/sandbox.sh
source "$here/sandbox.sh"

LIMIT_S=60
failures=0

input=$sandbox/input
"$here/../stanzas" 50 >"$input"

complain() {
	echo "badinput: $*" >&2
	failures=$((failures + 1))
}

# run COMMAND...: keeps stdout, stderr and the status.
run() {
	status=0
	(inside timeout -k 5 "$LIMIT_S" "$@") </dev/null \
		>"$sandbox/stdout" 2>"$sandbox/stderr" || status=$?
}

# refused WHAT STATUS WORD: judges the last run. The sentence names WORD.
refused() {
	local what=$1 expected=$2 word=$3 left
	((status == expected)) ||
		complain "$what: exit $status, not $expected"
	(($(wc -l <"$sandbox/stderr") == 1)) ||
		complain "$what: not one sentence: $(cat "$sandbox/stderr")"
	grep -qF -- "$word" "$sandbox/stderr" ||
		complain "$what: does not name '$word':" \
			"$(cat "$sandbox/stderr")"
	[[ ! -s $sandbox/stdout ]] ||
		complain "$what: an answer for an error:" \
			"$(head -c 200 "$sandbox/stdout")"
	until_true 10 nobody_runs || :
	left=$(leftovers)
	[[ -z $left ]] || complain "$what: left behind: $left"
}

demo() {
	run "$petal" demo --json "$@"
}

usage_is_checked_before_anything_starts() {
	run "$petal" frobnicate
	refused 'unknown command' 2 frobnicate
	demo --input "$input" --frobnicate
	refused 'unknown option' 2 --frobnicate
	demo --input "$input" --level mem9
	refused 'unknown level' 2 mem9
	demo --input "$input" --workers 0
	refused 'no workers' 2 0
	demo --input "$input" --workers many
	refused 'workers in words' 2 many
}

status_without_a_node_says_so() {
	run "$petal" status
	refused 'status without a node' 1 petald
}

input_that_is_not_there() {
	demo --input "$sandbox/no-such-file"
	refused 'missing input' 1 "$sandbox/no-such-file"
	demo --input "$sandbox"
	refused 'a directory as input' 1 "$sandbox"
}

unknown_provider() {
	demo --input "$input" --provider pigeon
	refused 'unknown provider' 1 pigeon
}

# Root may write almost anywhere, but not under a file.
directory_that_cannot_be_written() {
	demo --input "$input" --dir "$input/petals"
	refused 'directory under a file' 1 "$input/petals"
}

# A fabric of one node: node_config FILE DIR FABRIC-PORT REGISTRY-PORT.
node_config() {
	[[ -f $sandbox/key ]] || (
		umask 077
		od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$sandbox/key"
		echo >>"$sandbox/key"
	)
	cat >"$1" <<-END
		[petal]
		cluster = badinput
		node = 1
		dir = $2
		key = $sandbox/key
		provider = tcp
		journal_bytes = 16M

		[node 1]
		name = a
		domain = here
		fabric = 127.0.0.1:$3
		registry = 127.0.0.1:$4
	END
}

free_port() {
	python3 -c '
import socket
with socket.create_server(("127.0.0.1", 0)) as s:
    print(s.getsockname()[1])'
}

port_in_use() {
	local port listening config=$sandbox/port.conf
	coproc listener {
		exec python3 -c '
import socket, sys
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
sys.stdin.read()'
	}
	read -r port <&"${listener[0]}"

	node_config "$config" "$sandbox/port-1" "$port" "$(free_port)"
	run "$petald" --config "$config"
	refused "the fabric's port in use" 1 "$port"
	node_config "$config" "$sandbox/port-2" "$(free_port)" "$port"
	run "$petald" --config "$config"
	refused "the registry's port in use" 1 "$port"

	listening=${listener[1]}
	exec {listening}>&-
}

configuration_with_a_typing_mistake() {
	local config=$sandbox/mistake.conf
	node_config "$config" "$sandbox/mistake" 1 2
	sed -i 's/^provider/provder/' "$config"
	run "$petald" --config "$config"
	refused 'a typing mistake' 1 provder
	run "$petald" --config "$sandbox/no-such.conf"
	refused 'no configuration' 1 "$sandbox/no-such.conf"
	run "$petald"
	refused 'no --config' 2 --config
}

# Gives each superblock a version from the future. What every format keeps is
# the magic, the version behind it, and CRC-32C in the last bytes of the block.
age_journal() {
	python3 - "$1" <<'END'
import sys

BLOCK_BYTES = 4096
COPIES = 4


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


with open(sys.argv[1], "r+b") as journal:
    for copy in range(COPIES):
        journal.seek(copy * BLOCK_BYTES)
        block = bytearray(journal.read(BLOCK_BYTES))
        block[8:12] = (4242).to_bytes(4, "little")
        block[-4:] = crc32c(block[:-4]).to_bytes(4, "little")
        journal.seek(copy * BLOCK_BYTES)
        journal.write(block)
END
}

# Lets a node run until it says that it is ready, then asks it to stop.
run_until_ready() {
	local pid word='' ended=0
	mkfifo "$sandbox/ready"
	(inside timeout -k 5 "$LIMIT_S" "$petald" --config "$1" --ready-fd 3) \
		3>"$sandbox/ready" 2>"$sandbox/stderr" &
	pid=$!
	read -r word <"$sandbox/ready" || :
	kill -TERM "$pid" 2>/dev/null || :
	wait "$pid" || ended=$?
	rm "$sandbox/ready"
	[[ $word == ready ]] && ((ended == 0 || ended == 124))
}

journal_of_another_version() {
	local journal config=$sandbox/old.conf dir=$sandbox/old
	node_config "$config" "$dir" "$(free_port)" "$(free_port)"
	run_until_ready "$config" || {
		complain "a node of its own: $(cat "$sandbox/stderr")"
		return
	}
	journal=$(find "$dir" -name journal.0)
	[[ -f $journal ]] || {
		complain "a node without a journal"
		return
	}
	age_journal "$journal"
	run "$petald" --config "$config"
	refused 'journal of another version' 1 version
}

# A disk of 1 MiB, in a mount namespace of its own, checked before it goes.
full_disk() {
	local disk=$sandbox/disk
	unshare -rm true 2>/dev/null || {
		echo "badinput: a full disk is not tried: no mount namespace here"
		return
	}
	mkdir "$disk"
	# shellcheck disable=SC2016 # The dollars are the inner shell's.
	run unshare -rm sh -c '
		mount -t tmpfs -o size=1M none "$1" || exit 99
		"$2" demo --json --input "$3" --dir "$1/petals"
		status=$?
		find "$1" -type f >"$4"
		exit $status
	' sh "$disk" "$petal" "$input" "$sandbox/kept-on-disk"
	refused 'full disk' 1 "$disk"
	[[ ! -s $sandbox/kept-on-disk ]] ||
		complain "full disk: kept $(cat "$sandbox/kept-on-disk")"
}

usage_is_checked_before_anything_starts
status_without_a_node_says_so
input_that_is_not_there
unknown_provider
directory_that_cannot_be_written
configuration_with_a_typing_mistake
port_in_use
journal_of_another_version
full_disk

((failures == 0)) || fail "$failures complaint(s)"
