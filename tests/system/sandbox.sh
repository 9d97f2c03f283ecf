# Sourced by the system tests: a place in which nothing may be left behind.
#
# Everything started by `inside` carries one variable in its environment, and
# so do its children and theirs, whatever session or group they move to. By
# that they are found, and by their pids they are ended if a test fails.
# shellcheck shell=bash

sandbox_id=petal-test-$$-$RANDOM
sandbox=$(mktemp -d "${TMPDIR:-/tmp}/$sandbox_id.XXXXXX")
sandbox_tmp=$sandbox/tmp
mkdir "$sandbox_tmp"

# inside COMMAND...: replaces a subshell, so that $! is the command itself.
# A shell ignores SIGINT in what it starts with &: Ctrl-C must work there.
inside() {
	exec env --default-signal=INT,QUIT PETAL_TEST_RUN="$sandbox_id" \
		TMPDIR="$sandbox_tmp" "$@"
}

# Prints the pids of what runs inside. What has ended has no environment, and
# that of petald is for root's eyes only: its command line names our directory.
running() {
	{
		grep -lzxF "PETAL_TEST_RUN=$sandbox_id" \
			/proc/[0-9]*/environ 2>/dev/null
		grep -lzF "$sandbox/" /proc/[0-9]*/cmdline 2>/dev/null |
			while IFS=/ read -r _ _ pid _; do
				[[ $(cat "/proc/$pid/comm") != petald ]] ||
					echo "/proc/$pid/cmdline"
			done 2>/dev/null
	} | tr -dc '0-9\n' | sort -un
}

# How many of those are programs of this name.
count_running() {
	local pid count=0
	for pid in $(running); do
		[[ $(cat "/proc/$pid/comm" 2>/dev/null) != "$1" ]] ||
			count=$((count + 1))
	done
	echo "$count"
}

# Objects of ours in /dev/shm whose maker is gone.
stale_shm() {
	local name pid
	for name in /dev/shm/*; do
		name=${name##*/}
		case $name in
		petal*) echo "/dev/shm/$name" ;;
		[0-9]*:*)
			pid=${name%%:*}
			[[ -d /proc/$pid ]] || echo "/dev/shm/$name"
			;;
		esac
	done
}
sandbox_shm=$(stale_shm)

# until_true SECONDS COMMAND...: waits for an event that has no other signal.
until_true() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < deadline)) || return 1
		sleep 0.05
	done
}

nobody_runs() {
	[[ -z $(running) ]]
}

# Prints what is left, one thing a line: processes, files, shared memory.
leftovers() {
	local pid
	for pid in $(running); do
		echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done 2>/dev/null
	find "$sandbox_tmp" -mindepth 1 -maxdepth 2
	comm -13 <(sort <<<"$sandbox_shm") <(stale_shm | sort)
}

fail() {
	echo "$(basename "$0" .sh): $*" >&2
	exit 1
}

nothing_left() {
	local left
	until_true 10 nobody_runs || :
	left=$(leftovers)
	[[ -z $left ]] || fail "left behind after $1: $left"
}

sandbox_end() {
	local pid
	for pid in $(running); do
		kill -KILL "$pid" 2>/dev/null || :
	done
	rm -rf "$sandbox"
}
trap sandbox_end EXIT
