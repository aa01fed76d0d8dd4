#include "team.hpp"

#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace recurra {
namespace {

constexpr int SPINS = 1000;  // about 20 to 50 us; then the core is given away

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

HostPool host;

struct Job {
    void (*work)(void*, int, int);
    void* data;
};

}  // namespace

void Barrier::wait(int members) {
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        round_.notify_all();
        return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
        if (spins < SPINS)
            pause();
        else
            round_.wait(round, std::memory_order_acquire);
    }
}

void use_host_pool(HostPool pool) { host = pool; }

void run_on_threads(int threads, void (*work)(void*, int, int), void* data) {
    if (threads <= 1) return work(data, 0, 1);
    if (host.parallel) {
        Job job{work, data};
        host.parallel(
            [](void* p) {
                const Job& j = *static_cast<Job*>(p);
                j.work(j.data, host.id(), host.size());
            },
            &job, unsigned(threads), 0);
        return;
    }
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work, data, i, threads);
    work(data, 0, threads);
    for (auto& thread : others) thread.join();
}

}  // namespace recurra
