/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Erlang: processes of one virtual machine, N that send binaries of 64 bytes,
 * which are copied, to one that reads them. Its mailboxes have no bound, so the
 * receiver grants credit, as many messages under way as in our rings.
 *
 * The machine is started once and serves all legs: a line with a number starts
 * so many senders, one with 0 ends them. In between it says every other
 * millisecond how many messages have been received, and a party of ours copies
 * that number to where the others count theirs.
 */
#include "bench/fanin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define ERL "/usr/bin/erl"

/* The words of a message are its number and those that follow: they stay small
 * integers, which is what favours Erlang. */
static const char module[] =
	"-module(fanin). -export([main/0]).\n"
	"main() -> process_flag(trap_exit, true),\n"
	"  io:put_chars([erlang:system_info(otp_release), $\\n]), wait().\n"
	"wait() -> case io:get_line(\"\") of\n"
	"  eof -> halt();\n"
	"  Line -> N = list_to_integer(string:trim(Line)),\n"
	"    C = counters:new(1, [write_concurrency]),\n"
	"    R = spawn_link(fun() -> receiver(C, N) end),\n"
	"    T = spawn_link(fun() -> tell(C) end),\n"
	"    \"0\\n\" = io:get_line(\"\"),\n"
	"    [end_of(P) || P <- [T, R]],\n"
	"    io:put_chars(\"end\\n\"), wait() end.\n"
	"end_of(P) -> exit(P, kill),\n"
	"  receive {'EXIT', P, killed} -> ok;\n"
	"    {'EXIT', P, _} -> io:put_chars(\"bad\\n\") end.\n"
	"tell(C) -> timer:sleep(1),\n"
	"  io:put_chars([integer_to_list(counters:get(C, 1)), $\\n]), tell(C).\n"
	"receiver(C, N) -> R = self(), Credit = 1024 div N,\n"
	"  S = [spawn_link(fun() -> sender(R, I bsl 48, Credit) end)\n"
	"       || I <- lists:seq(0, N - 1)],\n"
	"  receive_all(C, list_to_tuple(S), erlang:make_tuple(N, 0),\n"
	"    max(1, Credit div 2)).\n"
	"receive_all(C, S, Next, Half) -> receive\n"
	"  <<Id:64/native, A:64/native, B:64/native, D:64/native,\n"
	"    E:64/native, F:64/native, G:64/native, H:64/native>>\n"
	"  when A =:= Id + 1, B =:= Id + 2, D =:= Id + 3, E =:= Id + 4,\n"
	"    F =:= Id + 5, G =:= Id + 6, H =:= Id + 7 ->\n"
	"    I = (Id bsr 48) + 1, Q = Id band 16#ffffffffffff,\n"
	"    Q = element(I, Next), counters:add(C, 1, 1),\n"
	"    if (Q + 1) rem Half =:= 0 -> element(I, S) ! Half;\n"
	"      true -> ok end,\n"
	"    receive_all(C, S, setelement(I, Next, Q + 1), Half);\n"
	"  _ -> exit(bad) end.\n"
	"sender(R, Id, 0) -> receive Credit -> sender(R, Id, Credit) end;\n"
	"sender(R, Id, Credit) ->\n"
	"  R ! <<Id:64/native, (Id + 1):64/native, (Id + 2):64/native,\n"
	"    (Id + 3):64/native, (Id + 4):64/native, (Id + 5):64/native,\n"
	"    (Id + 6):64/native, (Id + 7):64/native>>,\n"
	"  sender(R, Id + 1, Credit - 1).\n";

/* Compiled in memory, so that no file is needed or left. */
static const char boot[] =
	"Split = fun F(T, A) -> case erl_scan:tokens([], T, 1) of "
	"{done, {ok, K, _}, Rest} -> {ok, Form} = erl_parse:parse_form(K), "
	"F(Rest, [Form | A]); _ -> lists:reverse(A) end end, "
	"{ok, M, B} = compile:forms(Split(os:getenv(\"FANIN\"), [])), "
	"{module, M} = code:load_binary(M, \"\", B), M:main().";

static char version[48];

static struct {
	FILE *to;
	FILE *from;
} machine;

static _Noreturn void run_machine(pid_t parent, int in, int out)
{
	cpu_set_t all;

	/* It ends, too, when nobody is left to write to it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || setenv("FANIN", module, 1) != 0)
		_exit(1);
	/* Its schedulers are as many as the CPUs, whoever is bound to one. */
	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	execl(ERL, ERL, "-noshell", "-eval", boot, (char *)NULL);
	_exit(127);
}

static int hear(char line[32])
{
	if (!fgets(line, 32, machine.from))
		return -EPIPE;
	return strcmp(line, "bad\n") == 0 ? -EBADMSG : 0;
}

/* Unbuffered, since what one process reads ahead another would miss. */
static int open_machine(int to, int from)
{
	char line[32];
	int err;

	machine.to = fdopen(to, "w");
	machine.from = fdopen(from, "r");
	if (!machine.to || !machine.from)
		return -errno;
	setvbuf(machine.to, NULL, _IONBF, 0);
	setvbuf(machine.from, NULL, _IONBF, 0);
	err = hear(line);
	if (err == 0)
		snprintf(version, sizeof(version), "Erlang/OTP %.*s",
			 (int)strcspn(line, "\n"), line);
	return err;
}

static int prepare(struct petal_flow_contender *who)
{
	pid_t parent = getpid();
	int in[2], out[2];
	pid_t child;
	int err;

	if (*version) {
		who->version = version;
		return 0;
	}
	if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
		return -errno;
	child = fork();
	if (child == 0)
		run_machine(parent, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	err = child < 0 ? -errno : open_machine(in[1], out[0]);
	if (err == 0)
		who->version = version;
	return err;
}

/* The senders are processes of the other machine. */
static int produce(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	struct timespec pause = { .tv_nsec = 20000000 };

	(void)who;
	(void)index;
	while (!petal_flow_is_over(run))
		nanosleep(&pause, NULL);
	return 0;
}

static int consume(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	unsigned party = petal_flow_consumer(who, index);
	char line[32] = "";
	int err = 0;

	fprintf(machine.to, "%u\n", who->producers);
	while (err == 0 && !petal_flow_is_over(run)) {
		err = hear(line);
		petal_flow_count(run, party, strtoull(line, NULL, 10));
	}
	fputs("0\n", machine.to);
	while (err == 0 && strcmp(line, "end\n") != 0)
		err = hear(line);
	return err;
}

void fanin_peer_erl(struct petal_flow_contender *ret_row, unsigned producers)
{
	*ret_row = (struct petal_flow_contender){
		.impl = "erlang",
		.version = "Erlang/OTP",
		.remark = "processes of one machine, binaries copied; its CPU "
			  "time is not in the row",
		.refusal = access(ERL, X_OK) == 0
				   ? NULL
				   : "erlang-base is not installed",
		.peer = true,
		.bytes = FANIN_BYTES,
		.producers = producers,
		.consumers = 1,
		.prepare = prepare,
		.produce = produce,
		.consume = consume,
	};
}
