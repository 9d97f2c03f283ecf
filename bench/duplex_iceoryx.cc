/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iceoryx: a publisher and a subscriber each way, with loaned chunks. Its
 * daemon runs as a child of ours, on chunks of the message's size; sleeping is
 * its WaitSet, to which the subscriber belongs only while somebody sleeps.
 *
 * The daemon removes its files if each of its clients has left before it ends,
 * and aborts otherwise. So our server is asked to leave and answers, and the
 * daemon ends at the exit, after the client's runtime. If somebody was killed,
 * we remove what is known by name; if we are, the next daemon does.
 */
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <grp.h>
#include <memory>
#include <poll.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/iceoryx_posh_types.hpp>
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <iceoryx_versions.hpp>

#include "bench/duplex.h"
#include "shm/atomic.h"

namespace
{

constexpr const char *daemon_name = "iox-roudi";
constexpr int patience_ms = 5000;
constexpr unsigned chunk_count = 64;
constexpr std::uint32_t chunk_align = 64;
constexpr std::size_t chunk_min = 128;
constexpr struct timespec step = { 0, 1000000 };

/*
 * Inherited by both sides.
 *
 * [LEFT] leave() stores left (release) -> ask_to_leave() loads it (acquire):
 *	  the server may be killed, for its daemon has heard of its end.
 */
struct Note {
	petal_u32 leave; /* the client has asked */
	petal_u32 left;  /* the server is known to the daemon no more */
};

struct Side {
	std::unique_ptr<iox::popo::UntypedPublisher> publisher;
	std::unique_ptr<iox::popo::UntypedSubscriber> subscriber;
	std::unique_ptr<iox::popo::WaitSet<1>> waits;
	bool attached;
};

struct Daemon {
	pid_t pid;
	pid_t owner; /* a forked server has it by name only */
	int output;  /* open as long as it may print */
};

Side side;
Daemon roudi;
Note *note;

/* The daemon. */

/* In the child: no return. */
[[noreturn]] void run_daemon(pid_t parent, int config, int output)
{
	std::string path = "/proc/self/fd/" + std::to_string(config);
	cpu_set_t all;

	/* By SIGTERM it removes what it has made. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	/* It has threads of its own, which nobody's CPU is meant for. */
	std::memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	/* It should not supervise us: it would end who is paused. */
	execlp(daemon_name, daemon_name, "-m", "off", "-c", path.c_str(),
	       static_cast<char *>(nullptr));
	_exit(127);
}

int write_config(std::size_t bytes)
{
	/* And room for the alignment, whose lack would end this process. */
	std::size_t size = bytes < chunk_min ? chunk_min : bytes;
	int file = memfd_create("iceoryx", 0);
	int length;

	if (file < 0)
		return -errno;
	length = dprintf(file,
			 "[general]\nversion = 1\n\n[[segment]]\n\n"
			 "[[segment.mempool]]\nsize = %zu\ncount = %u\n",
			 (size / chunk_align + 2) * chunk_align, chunk_count);
	if (length > 0)
		return file;
	close(file);
	return -EIO;
}

/* It ends at once if somebody has one running already, or if there is none. */
int hear_ready(int output)
{
	std::string heard;
	char piece[512];

	while (heard.find("ready for clients") == std::string::npos) {
		struct pollfd wanted = { output, POLLIN, 0 };
		ssize_t got;

		if (poll(&wanted, 1, patience_ms) <= 0)
			return -ETIMEDOUT;
		got = read(output, piece, sizeof(piece));
		if (got <= 0)
			return heard.find("still running") != std::string::npos
				       ? -EBUSY
				       : -ENOPKG;
		heard.append(piece, static_cast<std::size_t>(got));
	}
	return 0;
}

/* The daemon that made them was ours, and has not ended as it should. */
void remove_files()
{
	const struct group *group = getgrgid(getegid());

	shm_unlink("/iceoryx_mgmt");
	if (group)
		shm_unlink((std::string("/") + group->gr_name).c_str());
	unlink("/tmp/roudi");
	unlink("/tmp/roudi.lock");
	unlink("/tmp/iox-unique-roudi.lock");
}

bool wait_daemon(int *status)
{
	for (int i = 0; i < patience_ms; i++) {
		if (waitpid(roudi.pid, status, WNOHANG) != 0)
			return true;
		nanosleep(&step, nullptr);
	}
	kill(roudi.pid, SIGKILL);
	return waitpid(roudi.pid, status, 0) > 0;
}

int stop_daemon()
{
	int status = 0;

	if (roudi.pid <= 0 || roudi.owner != getpid())
		return 0;
	kill(roudi.pid, SIGTERM);
	wait_daemon(&status);
	roudi.pid = 0;
	close(roudi.output);
	return status;
}

void stop_at_exit()
{
	if (stop_daemon() != 0)
		remove_files();
}

int start_daemon(std::size_t bytes)
{
	int config = write_config(bytes);
	pid_t parent = getpid();
	int ends[2];
	int err;

	if (config < 0)
		return config;
	if (pipe2(ends, O_CLOEXEC) != 0) {
		err = -errno;
		close(config);
		return err;
	}
	roudi.owner = parent;
	roudi.pid = fork();
	if (roudi.pid == 0)
		run_daemon(parent, config, ends[1]);
	err = roudi.pid < 0 ? -errno : 0;
	close(config);
	close(ends[1]);
	roudi.output = ends[0];
	if (err == 0)
		err = hear_ready(roudi.output);
	if (err < 0)
		stop_daemon();
	return err;
}

/* The transport. */

int prepare(petal_duplex *duplex)
{
	static const std::string version =
		std::string("iceoryx ") + ICEORYX_LATEST_RELEASE_VERSION;
	void *page = mmap(nullptr, sizeof(*note), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int err;

	if (page == MAP_FAILED)
		return -errno;
	note = static_cast<Note *>(page);
	duplex->version = version.c_str();
	err = start_daemon(duplex->bytes);
	/*
	 * At the exit, and after the runtime, which is made later and thus
	 * destroyed before this runs: the daemon ends whoever has not left.
	 */
	if (err == 0 && std::atexit(stop_at_exit) != 0)
		err = -ENOMEM;
	return err;
}

iox::capro::IdString_t id_of(const std::string &text)
{
	return iox::capro::IdString_t(iox::cxx::TruncateToCapacity,
				      text.c_str());
}

iox::capro::ServiceDescription service_of(const petal_duplex *duplex,
					  bool answer)
{
	return { id_of("petal-bench"), id_of(duplex->address),
		 id_of(answer ? "answer" : "question") };
}

std::string name_of(const petal_duplex *duplex, bool server)
{
	return std::string(duplex->address) + (server ? "-server" : "-client");
}

int wait_connected()
{
	for (int i = 0; i < patience_ms; i++) {
		if (side.publisher->hasSubscribers() &&
		    side.subscriber->getSubscriptionState() ==
			    iox::SubscribeState::SUBSCRIBED)
			return 0;
		nanosleep(&step, nullptr);
	}
	return -ETIMEDOUT;
}

int begin(petal_duplex *duplex, bool server)
{
	iox::popo::PublisherOptions publisher;
	iox::popo::SubscriberOptions subscriber;

	iox::log::LogManager::GetLogManager().SetDefaultLogLevel(
		iox::log::LogLevel::kError,
		iox::log::LogLevelOutput::kHideLogLevel);
	iox::runtime::PoshRuntime::initRuntime(iox::RuntimeName_t(
		iox::cxx::TruncateToCapacity, name_of(duplex, server).c_str()));
	subscriber.queueCapacity = 4;
	side.publisher = std::make_unique<iox::popo::UntypedPublisher>(
		service_of(duplex, server), publisher);
	side.subscriber = std::make_unique<iox::popo::UntypedSubscriber>(
		service_of(duplex, !server), subscriber);
	side.waits = std::make_unique<iox::popo::WaitSet<1>>();
	/* Both ways are there when the client, which comes later, sees them. */
	return server ? 0 : wait_connected();
}

int send_one(petal_duplex *, const void *bytes, std::size_t length, bool)
{
	auto loan = side.publisher->loan(static_cast<std::uint32_t>(length),
					 chunk_align);

	if (loan.has_error())
		return -ENOBUFS;
	std::memcpy(loan.value(), bytes, length);
	side.publisher->publish(loan.value());
	return 0;
}

/* Who spins should not make the other side post a semaphore. */
int attend(bool spin)
{
	if (side.attached && spin) {
		side.waits->detachState(*side.subscriber,
					iox::popo::SubscriberState::HAS_DATA);
		side.attached = false;
	} else if (!side.attached && !spin) {
		if (side.waits
			    ->attachState(*side.subscriber,
					  iox::popo::SubscriberState::HAS_DATA)
			    .has_error())
			return -EIO;
		side.attached = true;
	}
	return 0;
}

void close_side()
{
	if (side.attached)
		side.waits->detachState(*side.subscriber,
					iox::popo::SubscriberState::HAS_DATA);
	side.attached = false;
	side.waits.reset();
	side.subscriber.reset();
	side.publisher.reset();
}

/*
 * Not by an exit, which would print again what the client had not yet written
 * when it forked us.
 */
[[noreturn]] void leave()
{
	close_side();
	iox::runtime::PoshRuntime::getInstance().~PoshRuntime();
	/* [LEFT] Release: the daemon has heard of it. */
	petal_store(&note->left, 1, PETAL_RELEASE(LEFT));
	_exit(0);
}

int receive_one(petal_duplex *duplex, void *bytes, std::size_t length,
		bool spin)
{
	int err = attend(spin);

	if (err < 0)
		return err;
	if (!spin && duplex->server && petal_load(&note->leave, PETAL_RELAXED))
		leave();
	auto taken = side.subscriber->take();
	if (taken.has_error() && !spin) {
		side.waits->wait();
		return -EAGAIN;
	}
	if (taken.has_error())
		return taken.get_error() == iox::popo::ChunkReceiveResult::
						    NO_CHUNK_AVAILABLE
			       ? -EAGAIN
			       : -EIO;
	const auto *header =
		iox::mepoo::ChunkHeader::fromUserPayload(taken.value());
	if (header->userPayloadSize() == length)
		std::memcpy(bytes, taken.value(), length);
	else
		err = -EMSGSIZE;
	side.subscriber->release(taken.value());
	return err;
}

/* A message wakes the server, which nobody lets spin now. */
void ask_to_leave(petal_duplex *duplex)
{
	const std::string path = "/tmp/" + name_of(duplex, true);
	const std::string message(duplex->bytes, '\0');

	petal_store(&note->leave, 1, PETAL_RELAXED);
	if (side.publisher)
		send_one(duplex, message.data(), message.size(), false);
	for (int i = 0; i < patience_ms / 5; i++) {
		/* [LEFT] Acquire: then it may be ended. */
		if (petal_load(&note->left, PETAL_ACQUIRE(LEFT)))
			return;
		nanosleep(&step, nullptr);
	}
	unlink(path.c_str());
	unlink((path + ".lock").c_str());
}

void end(petal_duplex *duplex)
{
	if (note && roudi.pid > 0)
		ask_to_leave(duplex);
	close_side();
	if (note)
		munmap(note, sizeof(*note));
	note = nullptr;
}

petal_duplex make()
{
	petal_duplex duplex = {};

	duplex.impl = "iceoryx";
	duplex.remark = "chunks loaned, but filled and read by a copy, as "
			"all here; has threads and a daemon";
	duplex.prepare = prepare;
	duplex.begin = begin;
	duplex.send = send_one;
	duplex.receive = receive_one;
	duplex.end = end;
	return duplex;
}

} // namespace

extern "C" {
extern petal_duplex petal_duplex_iceoryx;
petal_duplex petal_duplex_iceoryx = make();
}
