#!/bin/bash
# Every order stronger than relaxed names its edge. In shm/ and rings/ only
# shm/atomic.h speaks to the compiler about atomics; all others say
# PETAL_ACQUIRE(EDGE) and the like, and the header of that noun, or one that it
# includes, lists [EDGE]. First the check is shown to fail on what breaks it.
#
#   tests/orders.sh [ROOT]

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
raw='__atomic_|__sync_|atomic_(load|store|fetch|exchange|compare|init|thread)'
raw+='|memory_order|_Atomic|stdatomic|std::atomic'

fail() {
	echo "orders: $*" >&2
	exit 1
}

# The header and the headers that it includes from the house, one level deep
# per round, three rounds: enough for NOUN_inl.h, NOUN.h and what it rests on.
manuals() {
	local seen=$1
	for _ in 1 2 3; do
		# shellcheck disable=SC2086 # A list of file names without spaces.
		seen=$(printf '%s\n' $seen $(sed -n \
			's/^#include "\(\(shm\|rings\)\/[a-z0-9_]*\.h\)".*/\1/p' \
			$seen 2>/dev/null) | sort -u)
	done
	printf '%s\n' "$seen"
}

# Prints one line for each offence below a root.
offences() (
	cd "$1"
	local file noun edge
	find shm rings -name '*.[ch]' ! -path shm/atomic.h 2>/dev/null | sort |
		xargs -r -d '\n' grep -nHE "$raw" |
		grep -vE '^[^:]*:[0-9]*:[[:space:]]*(/?\*|//)' || true
	for file in shm/*.[ch] rings/*.[ch]; do
		[[ -f $file && $file != shm/atomic.h ]] || continue
		noun=${file%.[ch]}
		noun=${noun%_inl}
		for edge in $(grep -vE '^[[:space:]]*(/?\*|//)' "$file" |
			grep -oE 'PETAL_(ACQUIRE|RELEASE|ACQ_REL|SEQ_CST)\([A-Z_0-9]+' |
			sed 's/.*(//' | sort -u); do
			# shellcheck disable=SC2046 # As above.
			grep -qsF "[$edge]" $(manuals "$file") "$noun.h" ||
				echo "$file: no header lists the edge [$edge]"
		done
	done
)

# Writes one file and expects so many offences.
expect() {
	local want=$1 text=$2 found
	mkdir -p "$scratch/rings" "$scratch/shm"
	printf '%s\n' "$text" >"$scratch/rings/x.h"
	found=$(offences "$scratch" | wc -l)
	((found == want)) || fail "expected $want offences, found $found: $text"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
expect 0 '/* [FILL] a to b */
petal_load(&x, PETAL_ACQUIRE(FILL))'
expect 1 'petal_load(&x, PETAL_ACQUIRE(FILL))'
expect 1 '	__atomic_store_n(&x, 1, 5);'
expect 1 '_Atomic int x;'
expect 0 ' * words like __atomic_load_n in a comment'

root=${1:-$here/..}
found=$(offences "$root")
[[ -z $found ]] || fail $'these do not name their edge:\n'"$found"
echo 'orders: each edge has a name, and each name a place in a header'
