#include "shm/error.h"

#include <limits.h>
#include <stddef.h>
#include <string.h>

struct error_text {
	const char *name;
	const char *text;
};

#define ERROR_FIRST PETAL_ECORRUPT
#define ERROR_TEXT(code, words) [code - ERROR_FIRST] = { #code, words }

static const struct error_text error_texts[] = {
	ERROR_TEXT(PETAL_ECORRUPT, "Bytes are damaged"),
	ERROR_TEXT(PETAL_EVERSION, "Layout version is not known to this build"),
	ERROR_TEXT(PETAL_EGEOMETRY, "Sizes contradict each other"),
	ERROR_TEXT(PETAL_EUNKNOWN, "Outcome is unknown"),
	ERROR_TEXT(PETAL_EFENCED, "Fenced by a later epoch"),
	ERROR_TEXT(PETAL_EDATALOSS, "Acknowledged data would be lost"),
	ERROR_TEXT(PETAL_ENOQUORUM, "Too few members can be reached"),
	ERROR_TEXT(PETAL_ENOTLEADER, "Not the leader of the registry"),
	ERROR_TEXT(PETAL_ECONFLICT, "Value has changed since it was read"),
	ERROR_TEXT(PETAL_ENOTPRIMARY, "Not the primary of the ring"),
	ERROR_TEXT(PETAL_EAUTH, "Identity was not proved"),
	ERROR_TEXT(PETAL_EDISK, "Journal is frozen after an I/O error"),
	ERROR_TEXT(PETAL_EHUGEPAGES, "No huge pages of that size are free"),
};

#define ERROR_COUNT ((int)(sizeof(error_texts) / sizeof(error_texts[0])))

/* INT_MIN has no positive twin; INT_MAX is just as unknown. */
static int error_magnitude(int err)
{
	if (err == INT_MIN)
		return INT_MAX;
	return err < 0 ? -err : err;
}

static const struct error_text *error_find(int err)
{
	if (err < ERROR_FIRST || err - ERROR_FIRST >= ERROR_COUNT)
		return NULL;
	return &error_texts[err - ERROR_FIRST];
}

const char *petal_strerror(int err)
{
	const struct error_text *ours;
	const char *theirs;

	err = error_magnitude(err);
	ours = error_find(err);
	if (ours)
		return ours->text;

	/* Unlike strerror(), this one has no buffer and no locale. */
	theirs = strerrordesc_np(err);
	return theirs ? theirs : "Unknown error";
}

const char *petal_error_name(int err)
{
	const struct error_text *ours;
	const char *theirs;

	err = error_magnitude(err);
	if (err == 0)
		return "OK";
	ours = error_find(err);
	if (ours)
		return ours->name;
	theirs = strerrorname_np(err);
	return theirs ? theirs : "UNKNOWN";
}
