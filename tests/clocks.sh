#!/bin/bash
# The time of day decides nothing: outside of shm/clock.c it is read only as an
# argument of petal_seal_clock_*(), for the tokens of connections (I17). First
# the check is shown to fail on a tree that breaks each rule.
#
#   tests/clocks.sh [ROOT]

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A call may be broken over lines, so each file is looked at as one. Programs
# that talk to people (cli/) may say what time it is.
# shellcheck disable=SC2016 # The dollars belong to perl.
look='
	undef $/;
	for my $file (@ARGV) {
		open my $in, "<", $file or die "$file: $!";
		my $text = <$in>;
		$text =~ s{/\*.*?\*/|//[^\n]*}{}gs;
		$text =~ s{"(?:[^"\\]|\\.)*"}{""}g;
		$text =~ s{petal_seal_clock_\w+\([^;]*;}{}g;
		while ($text =~ /\b(petal_clock_realtime_ns|CLOCK_REALTIME\w*
				|CLOCK_TAI|gettimeofday|timespec_get|ftime
				|localtime\w*|gmtime\w*|mktime|uv_gettimeofday
				|uv_clock_gettime|time(?=\s*\(\s*(?:NULL|&|\))))
				/gx) {
			print "$file: the time of day decides: $1\n";
		}
	}
'

offences() (
	cd "$1"
	find fabric topology actors rings -name '*.[ch]' \
		! -path 'fabric/cli/*' | sort |
		xargs -r -d '\n' perl -e "$look"
)

fail() {
	echo "clocks: $*" >&2
	exit 1
}

# shown FILE TEXT COUNT: so many offences in a tree with this one file.
shown() {
	local tree found
	tree=$(mktemp -d)
	mkdir -p "$tree"/{fabric,topology,actors,rings}
	printf '%s\n' "$2" >"$tree/$1"
	found=$(offences "$tree" | wc -l)
	rm -r "$tree"
	((found == $3)) || fail "'$2' in $1 gives $found, not $3"
}

shown fabric/a.c 'x = petal_clock_realtime_ns();' 1
shown fabric/a.c 'clock_gettime(CLOCK_REALTIME, &now);' 1
shown topology/a.h 'static long x(void) { return time(NULL); }' 1
shown rings/a.c 'gettimeofday(&now, NULL);' 1
shown actors/a.c 'timerfd_create(CLOCK_REALTIME_ALARM, 0);' 1
shown fabric/a.c '/* time(NULL) and CLOCK_REALTIME */' 0
shown fabric/a.c 'x = last_time(a); y.time_ns = 0; puts("time(NULL)");' 0
shown fabric/a.c 'n = petal_seal_clock_now(&c,
	petal_clock_realtime_ns(), petal_clock_now_ns());' 0

found=$(offences "${1:-$here/..}")
[[ -z $found ]] || fail "$found"
echo 'clocks: the time of day is for tokens alone'
