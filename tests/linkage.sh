#!/bin/bash
# What embedding libpetalith.so costs its host: libc and libsodium, nothing
# else; it can be loaded late; it leaves every signal as it was. And what it
# costs to loan: libpetalith-arena.so has its jemalloc inside, so it needs none,
# and shows nobody a malloc.
#
#   tests/linkage.sh LIBRARY LOADER [SANITIZER [ARENA]]

set -euo pipefail

library=${1:?the library}
loader=${2:?the program that loads it}
sanitizer=${3:-none}
arena=${4:-}

if [[ $sanitizer != none ]]; then
	echo "a sanitizer adds libraries and handlers of its own"
	exit 77
fi

needed() {
	LC_ALL=C readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p'
}

# Prints the libraries that have no business there.
strangers() {
	grep -Ev '^(libc\.so\.|libsodium\.so\.|ld-linux.*\.so\.)' || true
}

# The same for the library that loans; the last two are what jemalloc needs.
arena_strangers() {
	strangers | grep -Ev '^(libpetalith\.so\.|libm\.so\.|libgcc_s\.so\.)' || true
}

# Exported names that are not ours would collide with the host's.
foreign_exports() {
	LC_ALL=C nm -D --defined-only "$1" |
		awk '$3 !~ /^petal_/ && $2 != "A" { print $3 }'
}

fail() {
	echo "linkage: $*" >&2
	exit 1
}

# The check itself must be able to fail.
[[ $(printf 'libc.so.6\nlibm.so.6\n' | strangers) == libm.so.6 ]] ||
	fail "the check itself lets strangers in"

extra=$(needed "$library" | strangers)
[[ -z $extra ]] || fail "$library needs ${extra//$'\n'/, }"

extra=$(foreign_exports "$library")
[[ -z $extra ]] || fail "$library exports ${extra//$'\n'/, }"

if [[ -n $arena ]]; then
	[[ $(printf 'libjemalloc.so.2\nlibm.so.6\n' | arena_strangers) == \
		libjemalloc.so.2 ]] || fail "the check itself lets jemalloc in"
	extra=$(needed "$arena" | arena_strangers)
	[[ -z $extra ]] || fail "$arena needs ${extra//$'\n'/, }"
	extra=$(foreign_exports "$arena")
	[[ -z $extra ]] || fail "$arena exports ${extra//$'\n'/, }"
fi

"$loader" "$library" petal_strerror
