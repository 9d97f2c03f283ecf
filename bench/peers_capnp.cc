/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cap'n Proto RPC: a call between two vats over a pair of unix sockets.
 *
 * The payload is filled and checked where it lies in the messages, which both
 * sides allocate at once in their final size. The connection and the capability
 * are made once; each side has one thread, whose event loop it runs itself.
 * Spinning rows poll that loop, sleeping rows block in it. Each call is three
 * messages: call, return, and that the answer is no longer needed.
 */
#include <cerrno>
#include <cstdint>
#include <cstdio>

#include <sys/socket.h>
#include <unistd.h>

#include <capnp/common.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include "bench/echo.capnp.h"
#include "bench/payload.h"
#include "bench/peers_capnp.h"

using petal_echo::Echo;

namespace
{

constexpr std::uint64_t patience_ns = UINT64_C(5000000000);

/* What a message needs besides its payload, in words. */
constexpr std::uint64_t frame_words = 8;

capnp::MessageSize size_of(std::size_t bytes)
{
	return { bytes / 8 + frame_words, 0 };
}

/* Waits as the pair is told to. */
template <typename Promise>
auto wait_for(Promise &promise, const petal_pair *pair, kj::WaitScope &scope)
{
	while (petal_pair_spinning(pair) && !promise.poll(scope))
		;
	return promise.wait(scope);
}

int check(capnp::Data::Reader bytes, std::size_t length, std::uint64_t sequence)
{
	if (bytes.size() != length)
		return -EBADMSG;
	return petal_payload_check(bytes.begin(), length, sequence);
}

/* The server. */

class Answerer final : public Echo::Server
{
public:
	explicit Answerer(std::size_t bytes) : bytes_(bytes)
	{
	}

	/* Kept until the next call has come. */
	kj::Promise<void> next_call()
	{
		auto pair = kj::newPromiseAndFulfiller<void>();

		called_ = kj::mv(pair.fulfiller);
		return kj::mv(pair.promise);
	}

	int fault() const
	{
		return fault_;
	}

protected:
	kj::Promise<void> echo(EchoContext context) override
	{
		fault_ = check(context.getParams().getBytes(), bytes_,
			       ++sequence_);
		auto answer =
			context.getResults(size_of(bytes_)).initBytes(bytes_);
		petal_payload_fill(answer.begin(), bytes_,
				   PETAL_PAYLOAD_ANSWER(sequence_));
		called_->fulfill();
		return kj::READY_NOW;
	}

private:
	std::size_t bytes_;
	std::uint64_t sequence_ = 0;
	int fault_ = 0;
	kj::Own<kj::PromiseFulfiller<void>> called_;
};

struct Peer {
	std::size_t bytes;
	int fds[2] = { -1, -1 };
	struct Caller *caller = nullptr;
};

int serve_calls(petal_pair *pair, Peer &peer)
{
	auto io = kj::setupAsyncIo();
	auto stream = io.lowLevelProvider->wrapSocketFd(
		peer.fds[1], kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
	auto server = kj::heap<Answerer>(peer.bytes);
	Answerer &answerer = *server;
	auto call = answerer.next_call();
	capnp::TwoPartyClient network(*stream, kj::mv(server),
				      capnp::rpc::twoparty::Side::SERVER);

	petal_pair_tell(pair, 1);
	while (answerer.fault() == 0) {
		wait_for(call, pair, io.waitScope);
		call = answerer.next_call();
	}
	/* Nothing needs to be undone. */
	petal_pair_fail(pair, answerer.fault());
}

int serve(petal_pair *pair, void *arg)
{
	Peer &peer = *static_cast<Peer *>(arg);

	close(peer.fds[0]);
	try {
		return serve_calls(pair, peer);
	} catch (...) {
		petal_pair_fail(pair, -EIO);
	}
}

/* The client. */

struct Caller {
	explicit Caller(int fd)
	    : io(kj::setupAsyncIo()),
	      stream(io.lowLevelProvider->wrapSocketFd(
		      fd, kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP)),
	      network(*stream), echo(network.bootstrap().castAs<Echo>())
	{
	}

	kj::AsyncIoContext io;
	kj::Own<kj::AsyncIoStream> stream;
	capnp::TwoPartyClient network;
	Echo::Client echo;
};

int open_peer(petal_contender *contender, const petal_contest *contest)
{
	Peer &peer = *static_cast<Peer *>(contender->arg);
	int err;

	peer.bytes = contest->bytes;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, peer.fds) != 0)
		return -errno;
	err = petal_pair_open(&contender->pair, contest->cpus[1], serve, &peer);
	close(peer.fds[1]);
	return err;
}

int join_peer(petal_contender *contender, const petal_contest *)
{
	Peer &peer = *static_cast<Peer *>(contender->arg);
	std::uint32_t told;
	int err = petal_pair_hear(&contender->pair, patience_ns, &told);

	if (err < 0)
		return err;
	try {
		peer.caller = new Caller(peer.fds[0]);
	} catch (...) {
		return -EIO;
	}
	peer.fds[0] = -1;
	return 0;
}

int call(petal_contender *contender, Peer &peer, std::uint64_t sequence)
{
	Caller &caller = *peer.caller;
	auto request = caller.echo.echoRequest(size_of(peer.bytes));

	petal_payload_fill(request.initBytes(peer.bytes).begin(), peer.bytes,
			   sequence);
	auto promise = request.send();
	auto answer = wait_for(promise, &contender->pair, caller.io.waitScope);
	return check(answer.getBytes(), peer.bytes,
		     PETAL_PAYLOAD_ANSWER(sequence));
}

int trip(petal_contender *contender, std::uint64_t sequence)
try {
	return call(contender, *static_cast<Peer *>(contender->arg), sequence);
} catch (...) {
	/* Whatever it throws here says that the other side is gone. */
	return -EPIPE;
}

void close_peer(petal_contender *contender)
{
	Peer &peer = *static_cast<Peer *>(contender->arg);

	delete peer.caller;
	peer.caller = nullptr;
	if (peer.fds[0] >= 0)
		close(peer.fds[0]);
	peer.fds[0] = -1;
}

const char *version()
{
	static char text[32];

	snprintf(text, sizeof(text), "Cap'n Proto %d.%d.%d",
		 CAPNP_VERSION / 1000000, CAPNP_VERSION / 1000 % 1000,
		 CAPNP_VERSION % 1000);
	return text;
}

} // namespace

void petal_peers_capnp(petal_contender *ret_contender)
{
	static Peer peer;

	*ret_contender = petal_contender();
	ret_contender->impl = "capnp-unix";
	ret_contender->version = version();
	ret_contender->remark = "a call between two vats, filled and read in "
				"place";
	ret_contender->peer = true;
	ret_contender->open = open_peer;
	ret_contender->join = join_peer;
	ret_contender->trip = trip;
	ret_contender->close = close_peer;
	ret_contender->arg = &peer;
}
