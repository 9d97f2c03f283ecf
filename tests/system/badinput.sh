#!/bin/bash
# What is wrong is named: one sentence on stderr, exit 1 (the fabric) or 2
# (the usage), nothing left running and nothing half-written.
#
#   tests/system/badinput.sh PETAL

set -euo pipefail

petal=${1:?the petal program}
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
	refused 'missing input' 2 "$sandbox/no-such-file"
	demo --input "$sandbox"
	refused 'a directory as input' 2 "$sandbox"
}

unknown_provider() {
	demo --input "$input" --provider pigeon
	refused 'unknown provider' 2 pigeon
}

# Root may write almost anywhere, but not under a file.
directory_that_cannot_be_written() {
	demo --input "$input" --dir "$input/petals"
	refused 'directory under a file' 1 "$input/petals"
}

port_in_use() {
	local port listening
	coproc listener {
		exec python3 -c '
import socket, sys
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
sys.stdin.read()'
	}
	read -r port <&"${listener[0]}"
	demo --input "$input" --port "$port"
	refused 'port in use' 1 "$port"
	listening=${listener[1]}
	exec {listening}>&-
}

# The version is the number after the magic, in each copy of the superblock.
age_journal() {
	python3 - "$1" <<'END'
import sys

MAGIC_BYTES = 8
SUPERBLOCKS_BYTES = 64 * 1024

with open(sys.argv[1], "r+b") as journal:
    start = journal.read(SUPERBLOCKS_BYTES)
    magic = start[:MAGIC_BYTES]
    at = start.find(magic)
    while at >= 0:
        journal.seek(at + MAGIC_BYTES)
        journal.write((4242).to_bytes(4, "little"))
        at = start.find(magic, at + 1)
END
}

journal_of_another_version() {
	local journal dir=$sandbox/kept
	demo --input "$input" --dir "$dir"
	((status == 0)) || {
		complain "a demo with --dir: exit $status:" \
			"$(cat "$sandbox/stderr")"
		return
	}
	mkdir -p "$dir"
	journal=$(find "$dir" -name journal.0 | sort | head -n 1)
	[[ -f $journal ]] || {
		complain "--dir kept no journal"
		return
	}
	age_journal "$journal"
	demo --input "$input" --dir "$dir"
	refused 'journal of another version' 1 4242
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
port_in_use
journal_of_another_version
full_disk

((failures == 0)) || fail "$failures complaint(s)"
