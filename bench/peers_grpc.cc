/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC: a unary call, over one channel to one server on 127.0.0.1, and over one
 * on a unix socket (of the abstract kind, so that no file is left).
 *
 * The messages are gRPC's own byte buffers in generic calls: no protobuf is
 * encoded or decoded, which favours gRPC. As its documents advise for latency,
 * the channel and the stub are made once, each side has one thread and
 * one completion queue which that thread polls, and further requests are
 * asked for before the last one is answered. Its optional filters are off
 * (grpc.minimal_stack), which saves it another 8 % here. Spinning rows poll
 * the queue with a deadline that has passed; sleeping rows block in it.
 *
 * The servers are forked before this process first calls gRPC, which does not
 * survive a fork. Whatever gRPC throws or aborts on ends its own process.
 */
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unistd.h>

#include <grpc/grpc.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "bench/contest.h"
#include "bench/payload.h"
#include "bench/peers_grpc.h"

namespace
{

constexpr auto patience = std::chrono::seconds(2);

/* A call that the server has asked for ahead: one served, one waiting. */
constexpr unsigned calls_ahead = 2;

struct Peer {
	bool over_unix;
	std::size_t bytes;
	std::string address;
	std::unique_ptr<grpc::CompletionQueue> queue;
	std::unique_ptr<grpc::GenericStub> stub;
};

/* Waits for the next event as the pair is told to. False: shut down. */
bool next_event(grpc::CompletionQueue &queue, const petal_pair *pair,
		void **tag, bool *ok)
{
	const gpr_timespec past = gpr_inf_past(GPR_CLOCK_MONOTONIC);

	while (petal_pair_spinning(pair)) {
		auto status = queue.AsyncNext(tag, ok, past);

		if (status != grpc::CompletionQueue::TIMEOUT)
			return status == grpc::CompletionQueue::GOT_EVENT;
	}
	return queue.Next(tag, ok);
}

grpc::ByteBuffer filled(std::size_t bytes, std::uint64_t sequence)
{
	/* Filled before anyone else holds it, so it is still ours to write. */
	grpc_slice raw = grpc_slice_malloc(bytes);

	petal_payload_fill(GRPC_SLICE_START_PTR(raw), bytes, sequence);
	grpc::Slice slice(raw, grpc::Slice::STEAL_REF);
	return grpc::ByteBuffer(&slice, 1);
}

int check(const grpc::ByteBuffer &buffer, std::size_t bytes,
	  std::uint64_t sequence)
{
	grpc::Slice slice;

	/* Large messages arrive in pieces and cost a copy. */
	if (!buffer.TrySingleSlice(&slice).ok() &&
	    !buffer.DumpToSingleSlice(&slice).ok())
		return -EBADMSG;
	if (slice.size() != bytes)
		return -EBADMSG;
	return petal_payload_check(slice.begin(), bytes, sequence);
}

/* One call at the server: request, read, write and finish, then gone. */
class Call
{
public:
	Call(grpc::AsyncGenericService *service,
	     grpc::ServerCompletionQueue *queue, std::size_t bytes)
	    : service_(service), queue_(queue), bytes_(bytes),
	      stream_(&context_)
	{
		service_->RequestCall(&context_, &stream_, queue_, queue_,
				      this);
	}

	/* An event of this call has happened; @sequence counts calls. */
	int step(bool ok, std::uint64_t *sequence)
	{
		if (!ok || state_ == State::finished) {
			delete this;
			return 0;
		}
		if (state_ == State::requested) {
			/* The next caller should find someone waiting. */
			new Call(service_, queue_, bytes_);
			state_ = State::reading;
			stream_.Read(&request_, this);
			return 0;
		}
		state_ = State::finished;
		return answer(++*sequence);
	}

private:
	enum class State { requested, reading, finished };

	int answer(std::uint64_t sequence)
	{
		int err = check(request_, bytes_, sequence);

		if (err < 0)
			return err;
		stream_.WriteAndFinish(
			filled(bytes_, PETAL_PAYLOAD_ANSWER(sequence)),
			grpc::WriteOptions(), grpc::Status::OK, this);
		return 0;
	}

	grpc::AsyncGenericService *service_;
	grpc::ServerCompletionQueue *queue_;
	std::size_t bytes_;
	grpc::GenericServerContext context_;
	grpc::GenericServerAsyncReaderWriter stream_;
	grpc::ByteBuffer request_;
	State state_ = State::requested;
};

int serve_calls(petal_pair *pair, Peer &peer,
		grpc::AsyncGenericService &service,
		grpc::ServerCompletionQueue &queue)
{
	std::uint64_t sequence = 0;
	void *tag;
	bool ok;
	int err = 0;

	for (unsigned i = 0; i < calls_ahead; i++)
		new Call(&service, &queue, peer.bytes);
	while (err == 0 && next_event(queue, pair, &tag, &ok))
		err = static_cast<Call *>(tag)->step(ok, &sequence);
	return err < 0 ? err : -ESHUTDOWN;
}

int serve(petal_pair *pair, void *arg)
{
	Peer &peer = *static_cast<Peer *>(arg);
	grpc::AsyncGenericService service;
	grpc::ServerBuilder builder;
	int port = 0;

	builder.AddListeningPort(peer.address,
				 grpc::InsecureServerCredentials(), &port);
	builder.AddChannelArgument(GRPC_ARG_OPTIMIZATION_TARGET, "latency");
	builder.AddChannelArgument(GRPC_ARG_MINIMAL_STACK, 1);
	builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
	builder.RegisterAsyncGenericService(&service);
	auto queue = builder.AddCompletionQueue();
	auto server = builder.BuildAndStart();
	if (!server || port <= 0)
		petal_pair_fail(pair, -EADDRNOTAVAIL);
	petal_pair_tell(pair, static_cast<std::uint32_t>(port));
	/* Only a broken payload ends it; then nothing needs to be undone. */
	petal_pair_fail(pair, serve_calls(pair, peer, service, *queue));
}

int open_peer(petal_contender *contender, const petal_contest *contest)
{
	Peer &peer = *static_cast<Peer *>(contender->arg);

	peer.bytes = contest->bytes;
	peer.address = peer.over_unix ? "unix-abstract:petalith-rpc-" +
						std::to_string(getpid())
				      : "127.0.0.1:0";
	return petal_pair_open(&contender->pair, contest->cpus[1], serve,
			       &peer);
}

int join_peer(petal_contender *contender, const petal_contest *)
{
	Peer &peer = *static_cast<Peer *>(contender->arg);
	grpc::ChannelArguments arguments;
	std::uint32_t port;
	auto deadline = std::chrono::system_clock::now() + patience;
	int err = petal_pair_hear(&contender->pair,
				  std::chrono::nanoseconds(patience).count(),
				  &port);

	if (err < 0)
		return err;
	if (!peer.over_unix)
		peer.address = "127.0.0.1:" + std::to_string(port);
	arguments.SetString(GRPC_ARG_OPTIMIZATION_TARGET, "latency");
	arguments.SetInt(GRPC_ARG_MINIMAL_STACK, 1);
	/* A proxy in the environment is not what is asked about. */
	arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
	auto channel = grpc::CreateCustomChannel(
		peer.address, grpc::InsecureChannelCredentials(), arguments);
	if (!channel->WaitForConnected(deadline))
		return -ETIMEDOUT;
	peer.queue = std::make_unique<grpc::CompletionQueue>();
	peer.stub = std::make_unique<grpc::GenericStub>(channel);
	return 0;
}

int trip(petal_contender *contender, std::uint64_t sequence)
{
	static const std::string method = "/petalith.Bench/Trip";
	Peer &peer = *static_cast<Peer *>(contender->arg);
	grpc::ClientContext context;
	grpc::ByteBuffer answer;
	grpc::Status status;
	void *tag;
	bool ok;

	auto call = peer.stub->PrepareUnaryCall(&context, method,
						filled(peer.bytes, sequence),
						peer.queue.get());
	call->StartCall();
	call->Finish(&answer, &status, &tag);
	if (!next_event(*peer.queue, &contender->pair, &tag, &ok))
		return -ESHUTDOWN;
	if (!ok || !status.ok())
		return -ECONNRESET;
	return check(answer, peer.bytes, PETAL_PAYLOAD_ANSWER(sequence));
}

void close_peer(petal_contender *contender)
{
	Peer &peer = *static_cast<Peer *>(contender->arg);
	void *tag;
	bool ok;

	peer.stub.reset();
	if (!peer.queue)
		return;
	/* A queue must be empty before it is destroyed. */
	peer.queue->Shutdown();
	while (peer.queue->Next(&tag, &ok))
		;
	peer.queue.reset();
}

petal_contender contender_of(const char *impl, const char *version, Peer *peer)
{
	petal_contender contender = {};

	contender.impl = impl;
	contender.version = version;
	contender.remark = "unary generic call, no protobuf, minimal "
			   "stack, a completion queue and a thread a side";
	contender.peer = true;
	contender.open = open_peer;
	contender.join = join_peer;
	contender.trip = trip;
	contender.close = close_peer;
	contender.arg = peer;
	return contender;
}

} // namespace

size_t petal_peers_grpc(struct petal_contender *contenders)
{
	static const std::string version = "gRPC C++ " + grpc::Version();
	static Peer over_tcp;
	static Peer over_unix;

	over_unix.over_unix = true;
	contenders[0] = contender_of("grpc-tcp", version.c_str(), &over_tcp);
	contenders[1] = contender_of("grpc-unix", version.c_str(), &over_unix);
	return PETAL_PEERS_GRPC;
}
