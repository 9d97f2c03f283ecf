// SPDX-License-Identifier: Apache-2.0
// A C++ caller: two threads, a ring in a segment, a doorbell to sleep on.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>

#include "rings/doorbell.h"
#include "rings/mpsc.h"
#include "rings/spsc.h"
#include "shm/barrier.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/segment.h"

namespace
{

constexpr std::uint64_t numbers = 100000;
constexpr std::uint64_t ring_at = 128;

int produce(petal_spsc &ring, petal_doorbell &news)
{
	for (std::uint64_t i = 0; i < numbers; i++) {
		void *slot;

		while (!(slot = petal_spsc_claim(&ring)))
			std::this_thread::yield();
		std::memcpy(slot, &i, sizeof(i));
		petal_spsc_publish(&ring);
		petal_doorbell_ring(&news, PETAL_DOORBELL_ALL);
	}
	return 0;
}

bool consume(petal_spsc &ring, petal_doorbell &news)
{
	for (std::uint64_t i = 0; i < numbers; i++) {
		const void *slot;
		std::uint64_t number;

		while (!(slot = petal_spsc_peek(&ring))) {
			std::uint32_t seen = petal_doorbell_arm(&news);

			if (!petal_spsc_peek(&ring))
				petal_doorbell_wait(&news, seen,
						    petal_clock_now_ns() +
							    PETAL_S(20));
		}
		std::memcpy(&number, slot, sizeof(number));
		if (number != i)
			return false;
		petal_spsc_release(&ring);
	}
	return true;
}

} // namespace

int main()
{
	petal_spsc_geometry geometry = {};
	petal_segment_options options = {};
	petal_segment segment;
	petal_spsc in, out;

	geometry.slot_count = 256;
	geometry.slot_bytes = sizeof(std::uint64_t);
	options.name = "cxx";
	options.body_bytes = ring_at + petal_spsc_bytes(&geometry);
	petal_barrier_enroll();
	int err = petal_segment_open(&options, &segment);
	if (err) {
		std::fprintf(stderr, "cxx: %s\n", petal_strerror(err));
		return 1;
	}
	auto *body = static_cast<std::uint8_t *>(petal_segment_body(&segment));
	auto *news = reinterpret_cast<petal_doorbell *>(body);
	std::uint64_t bytes = petal_spsc_bytes(&geometry);
	if (petal_spsc_format(body + ring_at, &geometry) ||
	    petal_spsc_attach(body + ring_at, bytes, PETAL_SPSC_PRODUCER,
			      &out) ||
	    petal_spsc_attach(body + ring_at, bytes, PETAL_SPSC_CONSUMER, &in))
		return 1;
	std::thread producer([&] { produce(out, *news); });
	bool right = consume(in, *news);
	producer.join();
	petal_segment_close(&segment);
	return right ? 0 : 1;
}
