/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CAF, the C++ Actor Framework: actors of one process, N that send messages of
 * 64 bytes, each in an envelope of its own, to one that reads them. Its
 * mailboxes have no bound, so the receiver grants credit, as many messages under
 * way as in our rings.
 *
 * All actors are event-based and live in the process of the consumer, on as
 * many threads as there are CPUs, whose CPU time is all counted as consumed. The
 * scheduler steals work, as it does by default. An actor may take 64 messages
 * in a turn: without the limit, which is its default, it does 0.6 to 0.9 times
 * as many here, and so it does with 16 or 256. Work sharing and, for producers,
 * threads of their own (detached) are slower still, so they have no rows.
 */
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

#include <sched.h>

#include <caf/all.hpp>

#include "bench/fanin.h"

struct fanin_caf_message {
	std::uint64_t words[FANIN_BYTES / 8];
};

/* It never leaves the process, so nobody needs to know how to write it down. */
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(fanin_caf_message)

namespace
{

using Go = caf::atom_constant<caf::atom("go")>;

class Producer : public caf::event_based_actor
{
public:
	Producer(caf::actor_config &config, caf::actor to, unsigned index,
		 const petal_flow_run *run)
	    : caf::event_based_actor(config), to_(std::move(to)), index_(index),
	      run_(run)
	{
	}

	caf::behavior make_behavior() override
	{
		return { [this](std::uint32_t credit) { produce(credit); } };
	}

private:
	void produce(std::uint32_t credit)
	{
		fanin_caf_message message;

		for (; credit > 0 && !petal_flow_is_over(run_); credit--) {
			fanin_fill(&message, fanin_id(index_, sequence_++));
			send(to_, message);
		}
	}

	caf::actor to_;
	unsigned index_;
	const petal_flow_run *run_;
	std::uint64_t sequence_ = 0;
};

/* What the actors tell the thread that is not one of them. */
struct Outcome {
	std::atomic<bool> wrong{ false };
};

class Consumer : public caf::event_based_actor
{
public:
	Consumer(caf::actor_config &config, const petal_flow_contender *who,
		 unsigned party, petal_flow_run *run, Outcome *outcome)
	    : caf::event_based_actor(config), party_(party), run_(run),
	      outcome_(outcome), producer_count_(who->producers),
	      credit_(FANIN_SLOTS / who->producers),
	      half_(credit_ > 1 ? credit_ / 2 : 1)
	{
	}

	caf::behavior make_behavior() override
	{
		for (unsigned i = 0; i < producer_count_; i++)
			producers_.push_back(spawn<Producer, caf::linked>(
				caf::actor_cast<caf::actor>(this), i, run_));
		return {
			[this](const fanin_caf_message &message) {
				take(message);
			},
			[this](Go) {
				for (const auto &producer : producers_)
					send(producer, credit_);
			},
		};
	}

private:
	void take(const fanin_caf_message &message)
	{
		unsigned index = message.words[0] >> FANIN_INDEX_SHIFT;

		if (fanin_check(&tally_, &message) < 0) {
			outcome_->wrong = true;
			quit();
			return;
		}
		petal_flow_count(run_, party_, tally_.count);
		if (tally_.next[index] % half_ == 0)
			send(producers_[index], half_);
	}

	std::vector<caf::actor> producers_;
	fanin_tally tally_ = {};
	unsigned party_;
	petal_flow_run *run_;
	Outcome *outcome_;
	unsigned producer_count_;
	std::uint32_t credit_;
	std::uint32_t half_;
};

/* Messages that an actor takes before it is another's turn. */
constexpr std::size_t turn = 64;

struct Config : caf::actor_system_config {
	explicit Config(std::size_t threads)
	{
		set("scheduler.max-threads", threads);
		set("scheduler.max-throughput", turn);
	}
};

/* Of the process that is the consumer. */
struct Stage {
	explicit Stage(std::size_t threads) : config(threads), system(config)
	{
	}

	Config config;
	Outcome outcome;
	caf::actor_system system;
	caf::actor consumer;
};

std::unique_ptr<Stage> stage;

/* Its threads are as many as the CPUs, whoever is bound to one. */
std::size_t free_cpus()
{
	cpu_set_t cpus;

	memset(&cpus, 0xff, sizeof(cpus));
	sched_setaffinity(0, sizeof(cpus), &cpus);
	sched_getaffinity(0, sizeof(cpus), &cpus);
	return static_cast<std::size_t>(CPU_COUNT(&cpus));
}

int join(petal_flow_contender *who, unsigned party, petal_flow_run *run)
try {
	/* Producers are actors of the consumer's process. */
	if (party < who->producers)
		return 0;
	stage = std::make_unique<Stage>(free_cpus());
	stage->consumer = stage->system.spawn<Consumer>(
		static_cast<const petal_flow_contender *>(who), party, run,
		&stage->outcome);
	return 0;
} catch (...) {
	return -EIO;
}

void nap()
{
	struct timespec pause = { 0, 20000000 };

	nanosleep(&pause, nullptr);
}

int produce(petal_flow_contender *, unsigned, petal_flow_run *run)
{
	while (!petal_flow_is_over(run))
		nap();
	return 0;
}

int consume(petal_flow_contender *, unsigned, petal_flow_run *run)
try {
	caf::anon_send(stage->consumer, Go::value);
	while (!petal_flow_is_over(run) && !stage->outcome.wrong)
		nap();
	caf::anon_send_exit(stage->consumer, caf::exit_reason::kill);
	stage->consumer = nullptr;
	stage->system.await_all_actors_done();
	return stage->outcome.wrong ? -EBADMSG : 0;
} catch (...) {
	return -EIO;
}

const char *version()
{
	static char text[32];

	snprintf(text, sizeof(text), "CAF %d.%d.%d", CAF_MAJOR_VERSION,
		 CAF_MINOR_VERSION, CAF_PATCH_VERSION);
	return text;
}

} // namespace

void fanin_peer_caf(petal_flow_contender *ret_row, unsigned producers)
{
	*ret_row = petal_flow_contender();
	ret_row->impl = "caf";
	ret_row->version = version();
	ret_row->remark = "actors of one process, copied; all CPU time under "
			  "consume";
	ret_row->peer = true;
	ret_row->bytes = FANIN_BYTES;
	ret_row->producers = producers;
	ret_row->consumers = 1;
	ret_row->join = join;
	ret_row->produce = produce;
	ret_row->consume = consume;
}
