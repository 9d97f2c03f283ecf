/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/explore/explore.h"

struct explore_edge explore_edges[EXPLORE_EDGES_MAX];
unsigned explore_edge_count;

/* From the folder on: compilers are given paths of many forms. */
static const char *file_of(const char *path)
{
	const char *file = strrchr(path, '/');

	while (file && file > path && file[-1] != '/')
		file--;
	return file ? file : path;
}

static struct explore_edge *edge_of(const struct explore_site *site)
{
	const char *file = file_of(site->file);
	struct explore_edge *edge;

	for (unsigned i = 0; i < explore_edge_count; i++) {
		edge = &explore_edges[i];
		if (edge->kind == site->kind &&
		    strcmp(edge->name, site->name) == 0 &&
		    strcmp(edge->file, file) == 0)
			return edge;
	}
	if (explore_edge_count == EXPLORE_EDGES_MAX) {
		fputs("explore: too many edges\n", stderr);
		exit(2);
	}
	edge = &explore_edges[explore_edge_count++];
	*edge = (struct explore_edge){
		.file = file,
		.name = site->name,
		.kind = site->kind,
		.order = site->kind,
	};
	return edge;
}

unsigned explore_order(struct explore_site *site)
{
	if (!site->edge)
		site->edge = edge_of(site);
	site->edge->passed++;
	return site->edge->order;
}
