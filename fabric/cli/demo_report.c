/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/cli/demo.h"

#define SECTIONS_SHOWN 10u

struct verdict {
	uint64_t results;
	uint64_t lost;
	uint64_t duplicated;
	uint64_t parse_errors;
	const char *digest;
	const char *reference;
	double seconds;
	bool good;
};

static uint64_t number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static struct verdict judge(const struct demo *demo, const json_t *reference)
{
	struct verdict v = {
		.results = number(demo->census, "results"),
		.duplicated = number(demo->census, "duplicated"),
		.parse_errors = number(demo->census, "parse_errors"),
		.digest = json_string_value(
			json_object_get(demo->census, "digest")),
		.reference =
			json_string_value(json_object_get(reference, "digest")),
		.seconds = (double)(demo->ended_ns - demo->started_ns) / 1e9,
	};

	if (v.digest == NULL)
		v.digest = "";
	v.lost = demo->input.records - v.results;
	v.good = v.lost == 0 && v.duplicated == 0 &&
		 v.results == demo->input.records &&
		 strcmp(v.digest, v.reference) == 0;
	return v;
}

/* For programs. */

static json_t *prices_json(const struct demo_price *prices, unsigned count,
			   const char *key)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++) {
		const struct demo_price *p = &prices[i];
		json_t *row =
			json_pack("{s:s, s:s}", key, p->name, "note", p->note);

		if (p->measured) {
			json_object_set_new(
				row, "p50_ns",
				json_integer((json_int_t)p->p50_ns));
			json_object_set_new(
				row, "p99_ns",
				json_integer((json_int_t)p->p99_ns));
		} else {
			json_object_set_new(row, "p50_ns", json_null());
			json_object_set_new(row, "p99_ns", json_null());
		}
		json_array_append_new(list, row);
	}
	return list;
}

static json_t *kills_json(const struct demo *demo)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < demo->kill_count; i++)
		json_array_append_new(
			list,
			json_pack("{s:s, s:s, s:I, s:I}", "what",
				  demo->kills[i].what, "name",
				  demo->kills[i].name, "pid",
				  (json_int_t)demo->kills[i].pid, "at_results",
				  (json_int_t)demo->kills[i].at_results));
	return list;
}

static void print_json(const struct demo *demo, const struct verdict *v)
{
	bool priced = demo->options.prices;
	json_t *answer = json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:o, s:f, s:o, s:o, s:I, "
		"s:I, s:I, s:f, s:f, s:s, s:O}",
		"input_records", (json_int_t)demo->input.records,
		"result_records", (json_int_t)demo->result_records, "lost",
		(json_int_t)v->lost, "duplicated", (json_int_t)v->duplicated,
		"redelivered", (json_int_t)demo->redelivered, "digest",
		v->digest, "reference_digest", v->reference, "killed",
		kills_json(demo), "seconds", v->seconds, "levels",
		prices_json(demo->levels, priced ? PETAL_LEVEL_COUNT : 0,
			    "level"),
		"rpc", prices_json(demo->peers, demo->peer_count, "impl"),
		"parse_errors", (json_int_t)v->parse_errors, "stale_refused",
		(json_int_t)demo->stale, "workers_restarted",
		(json_int_t)demo->worker_restarts, "catch_up_seconds",
		(double)demo->catch_up_ns / 1e9, "failover_seconds",
		(double)demo->failover_ns / 1e9, "level",
		petal_level_name(demo->options.level), "sections",
		json_object_get(demo->census, "sections"));

	json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(answer);
}

/* For people. */

static void print_census(const struct demo *demo)
{
	const json_t *sections = json_object_get(demo->census, "sections");
	size_t count = json_array_size(sections);

	printf("The census: the %u largest of %zu sections\n\n",
	       count < SECTIONS_SHOWN ? (unsigned)count : SECTIONS_SHOWN,
	       count);
	printf("  %-24s %10s %14s %13s\n", "section", "packages", "size [KiB]",
	       "dependencies");
	for (size_t i = 0; i < count && i < SECTIONS_SHOWN; i++) {
		const json_t *s = json_array_get(sections, i);

		printf("  %-24.24s %10" PRIu64 " %14" PRIu64 " %13" PRIu64 "\n",
		       json_string_value(json_object_get(s, "section")),
		       number(s, "packages"), number(s, "size_kib"),
		       number(s, "dependencies"));
	}
}

static void print_kills(const struct demo *demo)
{
	for (unsigned i = 0; i < demo->kill_count; i++) {
		const struct demo_kill *k = &demo->kills[i];

		printf("  killed (SIGKILL)         %s%s%s, pid %d, after "
		       "%" PRIu64 " results\n",
		       k->what, k->name[0] == '\0' ? "" : " ", k->name,
		       (int)k->pid, k->at_results);
	}
	if (demo->primary_killed)
		printf("  another petal followed   after %.0f ms\n",
		       (double)demo->failover_ns / 1e6);
	else if (demo->options.kill)
		puts("  primary petal            not killed: the level does not "
		     "promise to survive it");
	if (demo->options.kill && demo->kill_count < 2)
		puts("  killed (SIGKILL)         too few records to kill in "
		     "the middle");
}

static void print_proof(const struct demo *demo, const struct verdict *v)
{
	printf("\nThe proof: %s\n\n",
	       v->good ? "nothing was lost, nothing counted twice" : "FAILED");
	printf("  input                    %s\n", demo->input.what);
	printf("  records in, at %-9s %" PRIu64 "\n",
	       petal_level_name(demo->options.level), demo->input.records);
	printf("  results                  %" PRIu64 "\n",
	       demo->result_records);
	printf("  of these, parse errors   %" PRIu64 "\n", v->parse_errors);
	printf("  lost                     %" PRIu64 "\n", v->lost);
	printf("  counted twice            %" PRIu64 "\n", v->duplicated);
	printf("  redelivered              %" PRIu64 "\n", demo->redelivered);
	print_kills(demo);
	if (demo->petal_killed)
		printf("  petal caught up          %.2f s after the last "
		       "result\n",
		       (double)demo->catch_up_ns / 1e9);
	printf("  digest                   %.32s...\n", v->digest);
	printf("  digest of a plain pass   %.32s...\n", v->reference);
	printf("  time                     %.2f s, %.0f records/s\n",
	       v->seconds, (double)demo->input.records / v->seconds);
}

static void print_price(const struct demo_price *p, const char *what)
{
	if (p->measured)
		printf("  %-24s %12.1f %12.1f   %s\n", p->name,
		       (double)p->p50_ns / 1e3, (double)p->p99_ns / 1e3, what);
	else
		printf("  %-24s %12s %12s   %s\n", p->name, "-", "-", p->note);
}

static void print_prices(const struct demo *demo)
{
	static const char *const promise[PETAL_LEVEL_COUNT] = {
		"published, nobody has looked",
		"survives its producer",
		"survives any one petal",
		"survives any two petals",
		"survives a power cut, and one disk",
		"survives a power cut, and two disks",
	};

	printf("\nThe price of one record of 256 bytes, one at a time, beside "
	       "network RPC\n\n");
	printf("  %-24s %12s %12s   %s\n", "level", "p50 [us]", "p99 [us]",
	       "promise");
	for (unsigned i = 0; i < PETAL_LEVEL_COUNT; i++)
		print_price(&demo->levels[i], promise[i]);
	for (unsigned i = 0; i < demo->peer_count; i++)
		print_price(&demo->peers[i], "round trip, survives nothing");
}

int demo_report(struct demo *demo)
{
	json_t *reference = census_json(&demo->input.reference);
	struct verdict v = judge(demo, reference);

	if (demo->options.json) {
		print_json(demo, &v);
	} else {
		print_census(demo);
		print_proof(demo, &v);
		if (demo->options.prices)
			print_prices(demo);
	}
	json_decref(reference);
	return v.good ? 0 : 1;
}
