/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/ring_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "shm/clock.h"
#include "shm/error.h"
#include "topology/member.h"

#define SLOTS_DEFAULT 4096
#define LEASE_NS_MAX PETAL_S(3600)

int petal_ring_config_name_check(const char *name)
{
	size_t length = name == NULL ? 0 : strlen(name);

	if (length == 0 || length >= PETAL_QUEUE_NAME_BYTES)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (!isalnum((unsigned char)name[i]) && name[i] != '-' &&
		    name[i] != '_')
			return -EINVAL;
	}
	return 0;
}

static int parse_queue(const json_t *object, unsigned index,
		       struct petal_queue_geometry *queue)
{
	const char *name = json_string_value(json_object_get(object, "name"));
	const json_t *given = json_object_get(object, "slots");
	json_int_t slots = json_integer_value(given);
	json_int_t lease_ns =
		json_integer_value(json_object_get(object, "lease_ns"));

	if (given != NULL && !json_is_integer(given))
		return -EINVAL;
	if (slots == 0)
		slots = SLOTS_DEFAULT;
	if (petal_ring_config_name_check(name) < 0 || slots < 2 ||
	    slots > PETAL_QUEUE_SLOTS_MAX || lease_ns < 1 ||
	    (uint64_t)lease_ns > LEASE_NS_MAX)
		return -EINVAL;
	strcpy(queue->name, name);
	queue->id = index + 1;
	queue->slot_count = (uint32_t)slots;
	queue->lease_ns = (uint64_t)lease_ns;
	return 0;
}

/* Queues are opened by their names. */
static bool is_taken(const struct petal_ring_config *config, unsigned index)
{
	for (unsigned i = 0; i < index; i++) {
		if (strcmp(config->queues[i].name,
			   config->queues[index].name) == 0)
			return true;
	}
	return false;
}

int petal_ring_config_shape(const json_t *object,
			    struct petal_ring_config *config)
{
	const json_t *queues = json_object_get(object, "queues");
	json_int_t bytes =
		json_integer_value(json_object_get(object, "data_bytes"));
	struct petal_log_geometry geometry;

	if (bytes <= 0 || (queues != NULL && !json_is_array(queues)) ||
	    json_array_size(queues) > PETAL_LOG_QUEUES_MAX)
		return -EINVAL;
	config->data_bytes = (uint64_t)bytes;
	config->queue_count = (unsigned)json_array_size(queues);
	for (unsigned i = 0; i < config->queue_count; i++) {
		if (parse_queue(json_array_get(queues, i), i,
				&config->queues[i]) < 0 ||
		    is_taken(config, i))
			return -EINVAL;
	}
	geometry = petal_ring_config_geometry(config);
	geometry.ring = 1; /* these two are not the client's to say */
	geometry.epoch = 1;
	return petal_log_geometry_check(&geometry);
}

static int parse_members(const json_t *object, struct petal_ring_config *config)
{
	const json_t *members = json_object_get(object, "members");

	if (json_array_size(members) != PETAL_LOG_MEMBERS)
		return -EINVAL;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const json_t *member = json_array_get(members, i);
		json_int_t node =
			json_integer_value(json_object_get(member, "node"));
		const char *inc =
			json_string_value(json_object_get(member, "inc"));
		const char *disk =
			json_string_value(json_object_get(member, "disk"));

		if (node < 1 || node > PETAL_MEMBER_NODE_MAX || inc == NULL ||
		    strlen(inc) >= PETAL_RING_CONFIG_INC_BYTES ||
		    disk == NULL ||
		    strlen(disk) >= PETAL_RING_CONFIG_INC_BYTES ||
		    petal_ring_config_member(config, (uint32_t)node) >= 0)
			return -EINVAL;
		config->members[i] = (uint32_t)node;
		strcpy(config->incs[i], inc);
		strcpy(config->disks[i], disk);
	}
	return petal_ring_config_member(config, config->primary) < 0 ? -EINVAL
								     : 0;
}

static int parse_number(const json_t *object, const char *key, uint64_t most,
			uint64_t *ret_number)
{
	const json_t *number = json_object_get(object, key);
	json_int_t value = json_integer_value(number);

	if (!json_is_integer(number) || value < 0 || (uint64_t)value > most)
		return -EINVAL;
	*ret_number = (uint64_t)value;
	return 0;
}

static const char *const state_names[] = {
	[PETAL_RING_CONFIG_MEMORY] = "recovering",
	[PETAL_RING_CONFIG_DISKS] = "recovering-from-disks",
	[PETAL_RING_CONFIG_ONE_DISK] = "recovering-from-one-disk",
};
#define SOURCES (sizeof(state_names) / sizeof(state_names[0]))

const char *petal_ring_config_state(const struct petal_ring_config *config)
{
	return config->recovering ? state_names[config->source] : "open";
}

static int parse_state(const json_t *object, struct petal_ring_config *config)
{
	const char *state = json_string_value(json_object_get(object, "state"));

	if (state == NULL)
		return -EINVAL;
	for (unsigned i = 0; i < SOURCES; i++) {
		if (strcmp(state, state_names[i]) == 0) {
			config->recovering = true;
			config->source = (enum petal_ring_config_source)i;
			return 0;
		}
	}
	return strcmp(state, "open") == 0 ? 0 : -EINVAL;
}

static int parse_loss(const json_t *object, struct petal_ring_config *config)
{
	const json_t *loss = json_object_get(object, "loss");
	uint64_t epoch;

	if (parse_number(loss, "epoch", config->epoch, &epoch) < 0 ||
	    parse_number(loss, "lsn", INT64_MAX, &config->loss.lsn) < 0)
		return -EINVAL;
	config->loss.epoch = (uint32_t)epoch;
	return 0;
}

static int parse_sealed(const json_t *object, struct petal_ring_config *config)
{
	const json_t *sealed = json_object_get(object, "sealed");
	uint64_t epoch, crc;

	if (parse_number(sealed, "epoch", config->epoch - 1, &epoch) < 0 ||
	    parse_number(sealed, "lsn", INT64_MAX, &config->sealed.lsn) < 0 ||
	    parse_number(sealed, "pos", INT64_MAX, &config->sealed.pos) < 0 ||
	    parse_number(sealed, "crc", UINT32_MAX, &crc) < 0)
		return -EINVAL;
	config->sealed.epoch = (uint32_t)epoch;
	config->sealed.crc = (uint32_t)crc;
	return 0;
}

static int parse_object(const json_t *object, struct petal_ring_config *config)
{
	json_int_t id = json_integer_value(json_object_get(object, "id"));
	json_int_t epoch = json_integer_value(json_object_get(object, "epoch"));

	json_int_t primary =
		json_integer_value(json_object_get(object, "primary"));

	if (id < 1 || id > UINT32_MAX || epoch < 1 || epoch > UINT32_MAX ||
	    primary < 1 || primary > PETAL_MEMBER_NODE_MAX ||
	    json_object_get(object, "queues") == NULL)
		return -EINVAL;
	config->id = (uint64_t)id;
	config->epoch = (uint32_t)epoch;
	config->primary = (uint32_t)primary;
	if (parse_members(object, config) < 0 ||
	    parse_state(object, config) < 0 ||
	    parse_sealed(object, config) < 0 || parse_loss(object, config) < 0)
		return -EINVAL;
	return petal_ring_config_shape(object, config);
}

int petal_ring_config_parse(const char *name, const void *value,
			    uint32_t length, uint64_t version,
			    struct petal_ring_config *ret_config)
{
	struct petal_ring_config config = { .version = version };
	json_t *object;
	int err;

	if (petal_ring_config_name_check(name) < 0)
		return -PETAL_ECORRUPT;
	strcpy(config.name, name);
	object = json_loadb(value, length, JSON_REJECT_DUPLICATES, NULL);
	err = parse_object(object, &config);
	json_decref(object);
	if (err < 0)
		return -PETAL_ECORRUPT;
	*ret_config = config;
	return 0;
}

static json_t *sealed_json(const struct petal_record_cursor *sealed)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "epoch",
			 (json_int_t)sealed->epoch, "lsn",
			 (json_int_t)sealed->lsn, "pos",
			 (json_int_t)sealed->pos, "crc",
			 (json_int_t)sealed->crc);
}

json_t *petal_ring_config_json(const struct petal_ring_config *config)
{
	json_t *members = json_array();
	json_t *queues = json_array();

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		json_array_append_new(members,
				      json_pack("{s:i, s:s, s:s}", "node",
						(int)config->members[i], "inc",
						config->incs[i], "disk",
						config->disks[i]));
	for (unsigned i = 0; i < config->queue_count; i++) {
		const struct petal_queue_geometry *queue = &config->queues[i];

		json_array_append_new(
			queues,
			json_pack("{s:s, s:I, s:I}", "name", queue->name,
				  "slots", (json_int_t)queue->slot_count,
				  "lease_ns", (json_int_t)queue->lease_ns));
	}
	return json_pack(
		"{s:I, s:I, s:i, s:s, s:o, s:o, s:I, s:o, s:o}", "id",
		(json_int_t)config->id, "epoch", (json_int_t)config->epoch,
		"primary", (int)config->primary, "state",
		petal_ring_config_state(config), "sealed",
		sealed_json(&config->sealed), "loss",
		json_pack("{s:I, s:I}", "epoch", (json_int_t)config->loss.epoch,
			  "lsn", (json_int_t)config->loss.lsn),
		"data_bytes", (json_int_t)config->data_bytes, "members",
		members, "queues", queues);
}

struct petal_log_geometry
petal_ring_config_geometry(const struct petal_ring_config *config)
{
	struct petal_log_geometry geometry = {
		.ring = config->id,
		.data_bytes = config->data_bytes,
		.epoch = config->epoch,
		.queue_count = config->queue_count,
	};

	memcpy(geometry.queues, config->queues, sizeof(geometry.queues));
	return geometry;
}

int petal_ring_config_member(const struct petal_ring_config *config,
			     uint32_t node)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (node != 0 && config->members[i] == node)
			return (int)i;
	}
	return -ENOENT;
}
