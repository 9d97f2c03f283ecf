/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_CRC32C_H
#define PETAL_SHM_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: crc32c - the checksum of every header, payload and journal batch
 *
 * CRC-32C as in RFC 3720 (iSCSI): polynomial 0x1edc6f41, bits reflected, all
 * ones before and after. The ASCII digits "123456789" give 0xe3069283.
 *
 * Always true:  crc(crc(0, A), B) == crc(0, A followed by B)
 *
 * It finds accidents: any burst of up to 32 bits, and up to five flipped bits
 * in a record of up to 655 bytes (three in one of up to 256 MiB). It does not
 * stop someone who wants to deceive; that is what seals are for.
 *
 * Two paths give the same answer: the CRC32 instruction of SSE4.2, three
 * streams at once for long inputs (Gopal et al., "Fast CRC Computation for
 * iSCSI Polynomial Using CRC32 Instruction", Intel 2011), and tables of eight
 * bytes at a time everywhere else. The first call chooses.
 *
 * Threads: every call may run at any time, in any thread. The bytes must not
 * change meanwhile if the answer is to mean anything, but a change does no
 * harm beyond a wrong answer.
 */

/**
 * petal_crc32c() - extend a checksum over more bytes
 * @crc: 0 to start, or what the call for the bytes before returned
 * @bytes: the bytes, at any alignment; may be NULL if @length is 0
 * @length: how many, 0 is fine and returns @crc
 *
 * Return: the checksum of all bytes so far.
 */
uint32_t petal_crc32c(uint32_t crc, const void *bytes, size_t length);

/**
 * petal_crc32c_portable() - the same, by tables only
 * @crc: as for petal_crc32c()
 * @bytes: as for petal_crc32c()
 * @length: as for petal_crc32c()
 *
 * For tests and benchmarks, which compare the two paths.
 *
 * Return: what petal_crc32c() returns.
 */
uint32_t petal_crc32c_portable(uint32_t crc, const void *bytes, size_t length);

/**
 * petal_crc32c_path() - which way petal_crc32c() goes on this machine
 *
 * Return: "sse4.2" or "table".
 */
const char *petal_crc32c_path(void);

#ifdef __cplusplus
}
#endif

#endif
