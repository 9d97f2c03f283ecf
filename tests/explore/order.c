/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/explore/explore.h"

/*
 * The program around the models of one kind of ring. First the code as it is:
 * no run may fail. Then with each end of each edge weakened: some run must.
 * The last line says how it went, as JSON.
 */

#define MODELS_MAX 64u
#define EXCUSED_LESS 20u

struct tally {
	uint64_t runs;
	uint64_t blocked;
	unsigned models, complete;
	unsigned ends, caught, excused;
	unsigned failed;
};

struct options {
	struct explore_budget whole, weakened;
	double seconds; /* of random runs after all else */
	const char *only;
	bool is_chatty;
	bool is_quick; /* what is excused is believed */
};

static struct tally tally;
static struct options options = {
	.whole = { .searched = 4000000, .random = 20000, .seed = 1 },
	.weakened = { .searched = 2000000, .random = 20000, .seed = 1 },
};
/* Which models pass which edges. */
static bool passes[MODELS_MAX][EXPLORE_EDGES_MAX];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static const char *order_name(unsigned order)
{
	switch (order) {
	case EXPLORE_RELAXED:
		return "relaxed";
	case EXPLORE_ACQUIRE:
		return "acquire";
	case EXPLORE_RELEASE:
		return "release";
	case EXPLORE_ACQ_REL:
		return "acq_rel";
	default:
		return "seq_cst";
	}
}

static void run(const struct explore_model *model,
		const struct explore_budget *budget,
		struct explore_result *ret_result)
{
	explore_run(model, budget, ret_result);
	tally.runs += ret_result->runs;
	tally.blocked += ret_result->blocked;
}

static void run_whole(unsigned index)
{
	const struct explore_model *model = explore_models[index];
	struct explore_result result;
	double begin = now();

	for (unsigned i = 0; i < explore_edge_count; i++)
		explore_edges[i].passed = 0;
	run(model, &options.whole, &result);
	for (unsigned i = 0; i < explore_edge_count; i++)
		passes[index][i] = explore_edges[i].passed > 0 &&
				   !result.failed;
	tally.models++;
	tally.complete += result.complete || model->must_fail;
	if (options.is_chatty)
		fprintf(stderr,
			"%s %-28s %10" PRIu64 " runs %10" PRIu64
			" blocked  %s  %.1f s\n",
			explore_kind, model->name, result.runs, result.blocked,
			result.failed     ? "failed  "
			: result.complete ? "complete"
					  : "cut     ",
			now() - begin);
	if (result.failed == model->must_fail)
		return;
	tally.failed++;
	fprintf(stderr, "order: %s: %s: %s\n", explore_kind, model->name,
		result.failed ? result.what
			      : "should have failed, and has not");
	if (result.failed)
		explore_show(model);
}

static const struct explore_excuse *excuse_of(const struct explore_edge *edge)
{
	const struct explore_excuse *excuse = explore_excuses;

	for (; excuse->file; excuse++)
		if (strcmp(excuse->file, edge->file) == 0 &&
		    strcmp(excuse->name, edge->name) == 0 &&
		    excuse->kind == edge->kind && excuse->left == edge->order)
			return excuse;
	return NULL;
}

static const struct explore_model *who_notices(unsigned edge, bool is_excused,
					       char *ret_what, size_t bytes)
{
	/* What has a reason to go unnoticed is not searched for to the end. */
	uint64_t searched =
		options.weakened.searched / (is_excused ? EXCUSED_LESS : 1);
	struct explore_budget budget = options.weakened;

	/* The cheap look at all of them before the thorough one at any. */
	for (unsigned pass = 0; pass < 2; pass++) {
		budget.random = pass == 0 ? options.weakened.random : 0;
		budget.searched = pass == 0 ? 0 : searched;
		for (unsigned i = 0; explore_models[i]; i++) {
			const struct explore_model *model = explore_models[i];
			struct explore_result result;

			if (!passes[i][edge])
				continue;
			run(model, &budget, &result);
			if (!result.failed)
				continue;
			snprintf(ret_what, bytes, "%s", result.what);
			return model;
		}
	}
	return NULL;
}

/* Once with one end of an edge made weaker. */
static void run_weakened(unsigned index, unsigned order)
{
	struct explore_edge *edge = &explore_edges[index];
	const struct explore_model *noticed;
	const struct explore_excuse *excuse;
	char what[256] = "nobody notices";
	double begin = now();

	edge->order = order;
	excuse = excuse_of(edge);
	noticed = excuse && options.is_quick
			  ? NULL
			  : who_notices(index, excuse, what, sizeof(what));
	edge->order = edge->kind;
	tally.ends++;
	tally.caught += noticed != NULL;
	tally.excused += !noticed && excuse;
	if (options.is_chatty)
		fprintf(stderr, "%s %s [%s] %s as %s: %s%s%s  %.1f s\n",
			explore_kind, edge->file, edge->name,
			order_name(edge->kind), order_name(order),
			noticed ? noticed->name : "", noticed ? ": " : "", what,
			now() - begin);
	if (!noticed == !excuse)
		tally.failed++;
	if (!noticed && !excuse)
		fprintf(stderr,
			"order: %s: [%s] of %s: nobody notices that %s has "
			"become %s\n",
			explore_kind, edge->name, edge->file,
			order_name(edge->kind), order_name(order));
	if (noticed && excuse)
		fprintf(stderr,
			"order: %s: [%s] of %s: excused as %s, and yet %s "
			"notices it\n",
			explore_kind, edge->name, edge->file, order_name(order),
			noticed->name);
}

static void weaken_all(void)
{
	for (unsigned i = 0; i < explore_edge_count; i++) {
		switch (explore_edges[i].kind) {
		case EXPLORE_ACQ_REL:
			run_weakened(i, EXPLORE_ACQUIRE);
			run_weakened(i, EXPLORE_RELEASE);
			break;
		case EXPLORE_SEQ_CST:
			run_weakened(i, EXPLORE_ACQ_REL);
			break;
		default:
			run_weakened(i, EXPLORE_RELAXED);
		}
	}
}

/* With what time is left, runs that no search has come to. */
static void stroll(double until)
{
	struct explore_budget budget = { .random = 20000 };

	budget.seed = options.whole.seed + options.whole.random;
	for (; now() < until; budget.seed += budget.random) {
		for (unsigned i = 0; explore_models[i]; i++) {
			const struct explore_model *model = explore_models[i];
			struct explore_result result;

			if (model->must_fail)
				continue;
			run(model, &budget, &result);
			if (!result.failed)
				continue;
			tally.failed++;
			fprintf(stderr, "order: %s: %s: seed %" PRIu64 ": %s\n",
				explore_kind, model->name, result.seed,
				result.what);
			explore_show(model);
			return;
		}
	}
}

/* For who compares them with the edges that the sources have. */
static void print_passed(void)
{
	printf("\"passed\": [");
	for (unsigned i = 0; i < explore_edge_count; i++)
		printf("%s\"%s %s %s\"", i ? ", " : "", explore_edges[i].file,
		       explore_edges[i].name,
		       order_name(explore_edges[i].kind));
	printf("], ");
}

static bool parse(int count, char **words)
{
	for (int i = 1; i < count; i++) {
		const char *value = i + 1 < count ? words[i + 1] : NULL;

		if (strcmp(words[i], "--quick") == 0) {
			options.is_quick = true;
			options.whole.searched = 30000;
			options.whole.random = 5000;
			options.weakened.searched = 20000;
			options.weakened.random = 20000;
			continue;
		}
		if (strcmp(words[i], "--c20") == 0) {
			explore_c20 = true;
			continue;
		}
		if (strcmp(words[i], "--chatty") == 0) {
			options.is_chatty = true;
			continue;
		}
		if (!value)
			return false;
		if (strcmp(words[i], "--seconds") == 0)
			options.seconds = atof(value);
		else if (strcmp(words[i], "--seed") == 0)
			options.whole.seed = strtoull(value, NULL, 10);
		else if (strcmp(words[i], "--searched") == 0)
			options.whole.searched = strtoull(value, NULL, 10);
		else if (strcmp(words[i], "--model") == 0)
			options.only = value;
		else
			return false;
		i++;
	}
	return true;
}

int main(int count, char **words)
{
	double begin = now();

	if (!parse(count, words)) {
		fprintf(stderr,
			"usage: %s [--quick] [--chatty] [--c20] [--model NAME]\n"
			"       [--searched RUNS] [--seconds S] [--seed N]\n",
			words[0]);
		return 2;
	}
	for (unsigned i = 0; explore_models[i]; i++)
		if (!options.only ||
		    strcmp(options.only, explore_models[i]->name) == 0)
			run_whole(i);
	weaken_all();
	stroll(begin + options.seconds);
	printf("{\"kind\": \"%s\", ", explore_kind);
	print_passed();
	printf("\"tried\": %" PRIu64 ", \"repeated\": %" PRIu64
	       ", \"models\": %u, \"complete\": %u, \"edges\": %u, "
	       "\"caught\": %u, \"excused\": %u, \"failed\": %u, "
	       "\"seconds\": %.1f}\n",
	       tally.runs, tally.blocked, tally.models, tally.complete,
	       tally.ends, tally.caught, tally.excused, tally.failed,
	       now() - begin);
	return tally.failed || !tally.runs;
}
