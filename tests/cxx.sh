#!/bin/bash
# The public headers of shm/ and rings/ are for C++ callers, too: each compiles
# on its own as C++17 without a warning, and a program that uses them, linked
# with the C library, does what it says.
#
#   tests/cxx.sh LIBRARY [ROOT]
#
# Exit 77 where there is no C++ compiler.

set -euo pipefail

library=$1
root=${2:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
cxx=${CXX:-c++}
flags=(-std=c++17 -Wall -Wextra -Wpedantic -Werror -I "$root")

command -v "$cxx" >/dev/null || {
	echo "cxx: skipped, there is no C++ compiler"
	exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
count=0
for header in "$root"/shm/*.h "$root"/rings/*.h; do
	[[ $header != *_inl.h ]] || continue
	header=${header#"$root"/}
	printf '#include "%s"\n' "$header" >"$scratch/one.cc"
	"$cxx" "${flags[@]}" -c "$scratch/one.cc" -o "$scratch/one.o" || {
		echo "cxx: $header does not compile as C++17" >&2
		exit 1
	}
	count=$((count + 1))
done
"$cxx" "${flags[@]}" ${CXX_SANITIZE:+"-fsanitize=$CXX_SANITIZE"} \
	"$root/tests/cxx.cc" "$library" \
	-Wl,-rpath,"$(dirname "$(readlink -f "$library")")" -o "$scratch/cxx"
"$scratch/cxx"
echo "cxx: $count headers compile as C++17"
