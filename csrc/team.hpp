// Threads that play one run together. The work is done on the host's own pool of threads where it has one (torch's
// OpenMP), so that no two pools fight for the cores; else on threads of ours that wait without spinning.
#pragma once
#include <atomic>

namespace recurra {

// Where the members of a team wait for each other. A short spin first: on a busy core the others need it.
class Barrier {
  public:
    void wait(int members);

  private:
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

struct Team {
    int id = 0, size = 1;
    Barrier* barrier = nullptr;
    void wait() const {
        if (size > 1) barrier->wait(size);
    }
    // The member's share of [0, n).
    long first(long n) const { return n * id / size; }
    long last(long n) const { return n * (id + 1) / size; }
};

// The host's pool: GCC's OpenMP entry points, or null.
struct HostPool {
    void (*parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
    int (*id)() = nullptr;
    int (*size)() = nullptr;
};
void use_host_pool(HostPool pool);

// work(data, member, members), once for each member, all at the same time (they may wait for each other). There are at
// most `threads` of them, and fewer where the pool gives fewer.
void run_on_threads(int threads, void (*work)(void*, int, int), void* data);

}  // namespace recurra
