/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_ERROR_H
#define PETAL_SHM_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: error - what a negative outcome means
 *
 * Every call of Petalith returns 0 when it is done, a positive outcome that
 * the call itself names, or a negative failure. A failure is either the
 * kernel's errno, negated and with its own name (-EAGAIN, -ENOSPC), or one of
 * the codes below, negated. A failure travels upwards unchanged.
 *
 * Our codes start at 5000, above every errno of Linux (at most 4095) and above
 * libfabric's own range, so that a number alone says who spoke. The numbers
 * cross process and machine boundaries: a code is never renumbered or reused.
 *
 * Threads: every call here may run at any time, in any thread.
 */

/** enum petal_error - failures for which the kernel has no name */
enum petal_error {
	/** @PETAL_ECORRUPT: bytes that should be ours fail their own check. */
	PETAL_ECORRUPT = 5000,
	/** @PETAL_EVERSION: written by a layout that this build cannot read. */
	PETAL_EVERSION = 5001,
	/** @PETAL_EGEOMETRY: sizes or offsets that contradict each other. */
	PETAL_EGEOMETRY = 5002,
	/** @PETAL_EUNKNOWN: it may or may not have happened; ask again. */
	PETAL_EUNKNOWN = 5003,
	/** @PETAL_EFENCED: a later epoch or generation has shut us out. */
	PETAL_EFENCED = 5004,
	/** @PETAL_EDATALOSS: going on would lose what was acknowledged. */
	PETAL_EDATALOSS = 5005,
	/** @PETAL_ENOQUORUM: too few members can be reached. */
	PETAL_ENOQUORUM = 5006,
	/** @PETAL_ENOTLEADER: ask the registry's leader instead. */
	PETAL_ENOTLEADER = 5007,
	/** @PETAL_ECONFLICT: a compare-and-swap lost; read again first. */
	PETAL_ECONFLICT = 5008,
	/** @PETAL_ENOTPRIMARY: ask the ring's primary instead. */
	PETAL_ENOTPRIMARY = 5009,
	/** @PETAL_EAUTH: the other side did not prove who it is. */
	PETAL_EAUTH = 5010,
	/** @PETAL_EDISK: the journal met an I/O error and is frozen. */
	PETAL_EDISK = 5011,
	/** @PETAL_EHUGEPAGES: none of the wanted size is free. */
	PETAL_EHUGEPAGES = 5012,
};

/**
 * petal_strerror() - say an outcome in words
 * @err: a failure of either sign, ours or the kernel's; 0 is success
 *
 * The text is English whatever the locale, so that logs of several machines
 * can be compared.
 *
 * Return: a constant string without a full stop; never NULL.
 */
const char *petal_strerror(int err);

/**
 * petal_error_name() - the constant's own name, for logs and JSON
 * @err: a failure of either sign, ours or the kernel's; 0 is success
 *
 * Return: a constant string such as "EAGAIN" or "PETAL_EFENCED", "OK" for 0
 * and "UNKNOWN" for a number that nobody has named; never NULL.
 */
const char *petal_error_name(int err);

#ifdef __cplusplus
}
#endif

#endif
