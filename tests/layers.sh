#!/bin/bash
# The strict order of the house: shm < rings < actors < topology < fabric. A
# folder includes itself and what is under it; only fabric/ sees libfabric and
# liburing. First the check is shown to fail on a tree that breaks each rule.
#
#   tests/layers.sh [ROOT]

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
floors='shm rings actors topology fabric'

# shellcheck disable=SC2016 # The dollars belong to awk.
look='
	BEGIN {
		count = split(floors, name, " ")
		for (i = 1; i <= count; i++)
			height[name[i]] = i
	}
	FNR == 1 { split(FILENAME, part, "/"); own = part[1] }
	!/^[ \t]*#[ \t]*include[ \t]*["<]/ { next }
	{
		target = $0
		sub(/^[ \t]*#[ \t]*include[ \t]*/, "", target)
		quoted = target ~ /^"/
		sub(/^["<]/, "", target)
		sub(/[">].*$/, "", target)
		first = target
		gsub(/^(\.\.?\/)+/, "", first)
		nested = sub(/\/.*$/, "", first)
	}
	nested && (first in height) && height[first] > height[own] {
		print FILENAME ":" FNR ": " own " is under " first ": " target
	}
	nested && (first == "tests" || first == "bench") {
		print FILENAME ":" FNR ": the house knows no tests: " target
	}
	quoted && target ~ /^\.\.?\// {
		print FILENAME ":" FNR ": not written from the root: " target
	}
	own != "fabric" && target ~ /^(rdma\/|liburing)/ {
		print FILENAME ":" FNR ": only fabric sees " target
	}
'

# Prints one line for each include that looks up, or out of the house. How it
# is written does not matter: "../rings/x.h" is a way up too.
offences() (
	cd "$1"
	for floor in $floors; do
		[[ ! -d $floor ]] || find "$floor" -name '*.[ch]'
	done | sort | xargs -r -d '\n' awk -v floors="$floors" "$look"
)

fail() {
	echo "layers: $*" >&2
	exit 1
}

# Writes one file with one include and expects exactly one offence, or none.
expect() {
	local count=$1 file=$2 include=$3 tree
	tree=$(mktemp -d -t petalith-layers.XXXXXX)
	mkdir -p "$tree/$(dirname "$file")"
	printf '#include %s\n' "$include" >"$tree/$file"
	local found
	found=$(offences "$tree" | wc -l)
	rm -rf "$tree"
	[[ $found -eq $count ]] ||
		fail "the check finds $found of $count in $file: $include"
}

prove_that_it_can_fail() {
	expect 0 rings/mpsc.c '"shm/error.h"'
	expect 0 rings/mpsc.c '"rings/record.h"'
	expect 0 fabric/wire_ofi.c '<rdma/fabric.h>'
	expect 0 fabric/cli/demo.c '"topology/place.h"'
	expect 1 shm/segment.c '"rings/mpsc.h"'
	expect 1 rings/mpsc_inl.h '"actors/queue.h"'
	expect 1 actors/queue.c '"topology/place.h"'
	expect 1 topology/member.h '  "fabric/wire.h"'
	expect 1 actors/queue.c '<fabric/wire.h>'
	expect 1 fabric/node.c '"tests/check.h"'
	expect 1 topology/place.c '<rdma/fi_errno.h>'
	expect 1 shm/clock.c '<liburing.h>'
	expect 1 rings/mpsc.c '"../shm/error.h"'
	expect 2 shm/clock.c '"../rings/mpsc.h"'
}

prove_that_it_can_fail
found=$(offences "${1:-$here/..}")
[[ -z $found ]] || {
	printf '%s\n' "$found" >&2
	fail "$(wc -l <<<"$found") include(s) break the order $floors"
}
