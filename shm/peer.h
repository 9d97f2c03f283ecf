/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_PEER_H
#define PETAL_SHM_PEER_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: peer - who a process is, and the proof that it is dead
 *
 * What a dead process owned is taken over, what a slow one owns is not, so
 * death must be proved. A timer proves nothing: a stopped process goes on. A
 * PID alone proves nothing: it is soon another's.
 *
 * An identity is a PID, the time when it started, and the realm in which those
 * two mean something: the boot of the machine and the namespaces of PIDs and of
 * time. It may be written to shared memory as an owner's stamp.
 *
 *    byte 0       8             16     20        24
 *    +------------+-------------+------+---------+
 *    | realm_hash | start_ticks | pid  | zero    |
 *    +------------+-------------+------+---------+
 *
 * From another namespace a PID is a number of somebody else. There a process
 * has an identity by inode: where the kernel gives each process an inode of its
 * own (pidfs, Linux 6.9 and later), its number takes the place of the start,
 * the PID is 0, and the realm is the boot alone. The process itself and all who
 * hold a pidfd of it find the same, whatever their namespaces
 * (petal_peer_identify_fd()). From such an identity nobody can be found; a
 * pidfd must come along: by SO_PEERPIDFD, by SCM_RIGHTS, or from a parent.
 *
 * A watch (struct petal_peer) holds a pidfd, which stays with its process even
 * when the PID is given to another. The pidfd becomes readable when the last
 * thread of the process has ended, whether or not its parent has waited for it:
 * a zombie is dead.
 *
 * Always true: petal_peer_dead() returns 1 only if the process of this identity
 * will never run again, and an open returns -ESRCH only then. A doubt is
 * another error, and means: not proved.
 *
 * Not seen as death: a process that is stopped, or that has called execve(),
 * which keeps PID, start time and pidfd while all mappings go. It may not use
 * them any more, but nobody may take them over before it ends. The hang-up of a
 * close-on-exec socket tells of both. Nor are the children of a process seen
 * with it: it is dead when it has ended, though a child of its may live on with
 * all of its mappings.
 *
 * Threads: opening may happen at any time. petal_peer_dead() may run with
 * itself; petal_peer_close() excludes all use of the same watch.
 *
 * Fork: a child is a process of its own, hence petal_peer_self() reads anew in
 * each call; what it inherits in its parent's name it must not use, for the
 * parent's death hands that to others. A watch works in the child as in the
 * parent.
 */

/**
 * struct petal_peer_id - which process, of all that ever ran on this machine
 * @realm_hash: boot and namespaces, hashed; never 0
 * @start_ticks: when it started, in clock ticks since boot; or its inode
 * @pid: its PID in its own namespace; 0 in an identity by inode
 * @reserved: zero
 *
 * Two processes with the same PID and the same tick would need all PIDs to be
 * used up within 10 ms.
 */
struct petal_peer_id {
	uint64_t realm_hash;
	uint64_t start_ticks;
	uint32_t pid;
	uint32_t reserved;
};

static_assert(offsetof(struct petal_peer_id, realm_hash) == 0, "layout");
static_assert(offsetof(struct petal_peer_id, start_ticks) == 8, "layout");
static_assert(offsetof(struct petal_peer_id, pid) == 16, "layout");
static_assert(offsetof(struct petal_peer_id, reserved) == 20, "layout");
static_assert(sizeof(struct petal_peer_id) == 24, "layout");

/**
 * struct petal_peer - a watch over one process, private to ours
 * @id: whom it watches
 * @fd: the pidfd, close-on-exec
 */
struct petal_peer {
	struct petal_peer_id id;
	int fd;
};

/**
 * petal_peer_self() - the identity of the calling process
 * @ret_id: the identity
 *
 * Return: 0; -EXDEV: /proc belongs to another PID namespace than ours, so what
 * it says of PIDs would mislead; -ENOENT: no /proc; otherwise what the kernel
 * said.
 */
int petal_peer_self(struct petal_peer_id *ret_id);

/**
 * petal_peer_identify() - the identity of whoever has this PID now
 * @pid: a PID in our namespace
 * @ret_id: the identity
 *
 * Only for a PID that cannot have changed hands yet: of a child not waited for,
 * or of one that will be asked again to confirm.
 *
 * Return: 0; -ESRCH: nobody lives under it; -EINVAL: not a PID; -EXDEV as for
 * petal_peer_self(); -EACCES: /proc hides it from us.
 */
int petal_peer_identify(int pid, struct petal_peer_id *ret_id);

/**
 * petal_peer_stamp() - the identity in one word, for one compare-and-swap
 * @id: of a process
 *
 * The PID, which Linux keeps below 2^22, and the start, good for a thousand
 * years; the realm must be known from elsewhere.
 *
 * Return: not 0, and different for any two processes of a realm; 0 for what has
 * no stamp: not an identity, or one by inode.
 */
uint64_t petal_peer_stamp(const struct petal_peer_id *id);

/**
 * petal_peer_unstamp() - back to the identity
 * @stamp: any number does no harm
 * @realm_hash: of whoever stamped
 * @ret_id: the identity, for petal_peer_open() to judge
 */
void petal_peer_unstamp(uint64_t stamp, uint64_t realm_hash,
			struct petal_peer_id *ret_id);

/**
 * petal_peer_open() - watch a process by its identity
 * @id: from petal_peer_self() of that process, perhaps read from shared memory;
 *	any bytes do no harm
 * @ret_peer: the watch
 *
 * Return: 0: it lives. -ESRCH: it is dead, proved, whoever may have its PID
 * now. -EXDEV: of another boot, machine or namespace, or by inode, so that it
 * cannot be judged from here. -EINVAL: not an identity. -EACCES: /proc hides it
 * from us. Otherwise what the kernel said (-EMFILE, -ENOMEM).
 */
int petal_peer_open(const struct petal_peer_id *id,
		    struct petal_peer *ret_peer);

/**
 * petal_peer_identify_fd() - the identity by inode of a pidfd's process
 * @pidfd: of any process, in whatever namespace; of ourselves by pidfd_open()
 * @ret_id: the identity
 *
 * Return: 0; -EINVAL: not a pidfd, or one of a single thread; -EXDEV: a kernel
 * without pidfs; -EBADF.
 */
int petal_peer_identify_fd(int pidfd, struct petal_peer_id *ret_id);

/**
 * petal_peer_open_fd() - watch a process by a pidfd that the kernel gave
 * @pidfd: from SO_PEERPIDFD, SCM_PIDFD, SCM_RIGHTS, clone3() or pidfd_open();
 *	stays the caller's, for a duplicate is kept
 * @ret_peer: the watch, its identity found from the pidfd
 *
 * The identity is by PID and start if our /proc shows the process, and by inode
 * if it lives in a PID namespace that ours cannot see.
 *
 * Return: 0: it lives. -ESRCH: it is dead. -EINVAL: not a pidfd, or one of a
 * single thread. -EXDEV: it lives where we cannot see it, and the kernel has no
 * pidfs; petal_peer_open_stated() can watch it all the same. -EBADF, -EACCES
 * and the rest as for petal_peer_open().
 */
int petal_peer_open_fd(int pidfd, struct petal_peer *ret_peer);

/**
 * petal_peer_open_stated() - watch a process that says itself who it is
 * @pidfd: as for petal_peer_open_fd()
 * @stated: what it says, such as its own petal_peer_self()
 * @ret_peer: the watch; its identity is the statement
 *
 * A statement in our own realm is held against what the kernel says. One of
 * another realm is believed, so the caller uses it only for what belongs to the
 * process that made it: who lies hands his own away.
 *
 * Return: 0: it lives. -ESRCH: it is dead. -PETAL_EAUTH: it is not whom it says
 * it is. -EINVAL: not a pidfd, or not an identity. Otherwise as for
 * petal_peer_open_fd().
 */
int petal_peer_open_stated(int pidfd, const struct petal_peer_id *stated,
			   struct petal_peer *ret_peer);

/**
 * petal_peer_fd() - for epoll: readable from the death on, for ever
 * @peer: the watch
 *
 * Return: the descriptor, which stays the watch's.
 */
int petal_peer_fd(const struct petal_peer *peer);

/**
 * petal_peer_dead() - has it ended?
 * @peer: the watch
 *
 * One system call, which does not wait.
 *
 * Return: 1: it has, proved; 0: not yet; < 0: the kernel would not say.
 */
int petal_peer_dead(const struct petal_peer *peer);

/**
 * petal_peer_close() - end the watch
 * @peer: the watch; closing it twice is fine, closing a zeroed one is not
 */
void petal_peer_close(struct petal_peer *peer);

#ifdef __cplusplus
}
#endif

#endif
