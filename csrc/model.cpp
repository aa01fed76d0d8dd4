#include "model.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace recurra {
namespace {

constexpr double WORTH_A_THREAD = 1e6;   // multiply-adds; to wake a thread costs as much as a tenth of them
constexpr double WORTH_A_MEETING = 5e4;  // multiply-adds of a step, for the threads to meet after each
constexpr long LARGE_WEIGHTS = 3 << 19;  // bytes; from there on each thread reads its share of the weights only
constexpr long PART_BYTES = 400'000;     // gates of the rows of a part that stay in the L2 cache
constexpr long ROWS_A_THREAD = 8;

// RECURRA_ISA=portable|avx2|avx512 asks for less than the machine has (to compare, or to reproduce another machine's
// bits).
bool allowed(const std::string& isa) {
    const char* most = std::getenv("RECURRA_ISA");
    if (!most || !*most) return true;
    static const std::vector<std::string> known{"portable", "avx2", "avx512"};
    const auto rank = [&](const std::string& name) { return std::find(known.begin(), known.end(), name); };
    if (rank(most) == known.end())
        throw RecipeError("RECURRA_ISA '" + std::string(most) + "' is unknown; known: portable, avx2, avx512");
    return rank(isa) <= rank(most);
}

template <class F>
const Engine<F>& pick(const Engine<F>& portable_engine, [[maybe_unused]] const Engine<F>* a,
                      [[maybe_unused]] const Engine<F>* b) {
    allowed("portable");  // always; an unknown name is refused on every machine
#ifdef RECURRA_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && allowed("avx512")) return *b;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && allowed("avx2")) return *a;
#endif
    return portable_engine;
}

// Fresh memory of this size is cheaper to enter by large pages.
constexpr size_t HUGE_PAGE = size_t(1) << 21;
void use_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
    const size_t at = (reinterpret_cast<size_t>(memory) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    const size_t end = (reinterpret_cast<size_t>(memory) + bytes) & ~(HUGE_PAGE - 1);
    if (end > at) madvise(reinterpret_cast<void*>(at), end - at, MADV_HUGEPAGE);  // advice: it may be refused
#endif
}

template <class F>
F* scratch(long n) {  // one a thread, kept: a step of a live stream allocates nothing
    thread_local Buffer<F> memory;
    memory.grow(n);
    return memory.data();
}

}  // namespace

template <>
const Engine<float>& engine<float>() {
#ifdef RECURRA_X86
    static const Engine<float>& best = pick(portable::f32, &avx2::f32, &avx512::f32);
#else
    static const Engine<float>& best = pick<float>(portable::f32, nullptr, nullptr);
#endif
    return best;
}
template <>
const Engine<double>& engine<double>() {
#ifdef RECURRA_X86
    static const Engine<double>& best = pick(portable::f64, &avx2::f64, &avx512::f64);
#else
    static const Engine<double>& best = pick<double>(portable::f64, nullptr, nullptr);
#endif
    return best;
}

Kind kind_of(const std::string& name) {
    if (name == "rnn_tanh") return Kind::rnn_tanh;
    if (name == "rnn_relu") return Kind::rnn_relu;
    if (name == "lstm") return Kind::lstm;
    if (name == "gru") return Kind::gru;
    throw std::invalid_argument("a cell is 'rnn_tanh', 'rnn_relu', 'lstm' or 'gru', not '" + name + "'");
}

template <class F>
Buffer<F>::~Buffer() {
    std::free(memory_);
}
template <class F>
void Buffer<F>::grow(long n) {
    if (n <= size_) return;
    std::free(memory_);
    size_ = 0;
    memory_ = static_cast<F*>(std::aligned_alloc(64, size_t(round_up(n * long(sizeof(F)), 64))));
    if (!memory_) throw std::bad_alloc();
    use_huge_pages(memory_, size_t(n) * sizeof(F));
    size_ = n;
}

namespace {

constexpr size_t MOST_UNUSED = size_t(512) << 20;
struct Blocks {
    std::mutex lock;
    std::multimap<size_t, void*> unused;
    std::map<void*, size_t> used;
    size_t unused_bytes = 0;
};
Blocks& blocks() {
    static Blocks* all = new Blocks;  // never destroyed: tensors may be given back while the process ends
    return *all;
}

}  // namespace

void* ReusedMemory::take(size_t bytes) {
    Blocks& b = blocks();
    const std::lock_guard<std::mutex> guard(b.lock);
    const auto fit = b.unused.lower_bound(bytes);
    if (fit != b.unused.end() && fit->first <= bytes + bytes / 4) {
        const auto [size, memory] = *fit;
        b.unused.erase(fit), b.unused_bytes -= size, b.used[memory] = size;
        return memory;
    }
    const size_t size = (bytes + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, size);
    if (!memory) throw std::bad_alloc();
    use_huge_pages(memory, size);
    b.used[memory] = size;
    return memory;
}

void ReusedMemory::give_back(void* memory) {
    Blocks& b = blocks();
    const std::lock_guard<std::mutex> guard(b.lock);
    const auto at = b.used.find(memory);
    b.unused.emplace(at->second, memory), b.unused_bytes += at->second, b.used.erase(at);
    while (b.unused_bytes > MOST_UNUSED) {
        const auto largest = std::prev(b.unused.end());
        b.unused_bytes -= largest->first;
        std::free(largest->second);
        b.unused.erase(largest);
    }
}

void ReusedMemory::release() {
    Blocks& b = blocks();
    const std::lock_guard<std::mutex> guard(b.lock);
    for (const auto& [size, memory] : b.unused) std::free(memory);
    b.unused.clear(), b.unused_bytes = 0;
#if defined(__GLIBC__)
    malloc_trim(0);  // once one block of up to 32 MB was freed, glibc keeps those of its size for itself
#endif
}

template <class F>
Packed<F>::Packed(const Shape& s, const Weights<F>& weights, Uses uses) {
    const long W = engine<F>().width, P = round_up(s.hidden, W) / W, C = round_up(s.outputs, W) / W;
    const long G = gates(s.kind) * W, S = slots(s.kind) * W, row = P * S, vx = round_up(s.inputs, W);
    struct Piece {
        F*& at;
        long size;
    };
    layer_ = {};
    layer_.kind = s.kind, layer_.norm = s.norm, layer_.inputs = s.inputs, layer_.hidden = s.hidden;
    layer_.outputs = s.outputs, layer_.panels = P, layer_.columns = C;
    const Piece pieces[] = {{layer_.w, uses.forward ? P * (s.inputs + s.outputs) * G : 0},
                            {layer_.bias, row},
                            {layer_.project, s.projected ? s.hidden * C * W : 0},  // also says that there is one
                            {layer_.peephole, s.peephole ? 3 * P * W : 0},
                            {layer_.gain_x, s.norm ? row : 0},
                            {layer_.gain, s.norm ? row : 0},
                            {layer_.gain_c, s.norm ? P * W : 0},
                            {layer_.bias_c, s.norm ? P * W : 0},
                            {layer_.wxt, uses.to_x ? row * vx : 0},
                            {layer_.wht, uses.backward ? row * C * W : 0},
                            {layer_.unproject, uses.backward && s.projected ? s.outputs * P * W : 0}};
    // A product reads a little ahead of its weights: one more block of them.
    long all = 64 * 4 * W;
    for (const Piece& piece : pieces) all += round_up(piece.size, 64 / long(sizeof(F)));
    memory_.reset(ReusedMemory::take(size_t(all) * sizeof(F)));
    F* at = static_cast<F*>(memory_.get());
    for (const Piece& piece : pieces) {
        piece.at = piece.size ? at : nullptr;
        at += round_up(piece.size, 64 / long(sizeof(F)));
    }
    engine<F>().pack(layer_, weights);
    if (uses.backward) engine<F>().pack_transposed(layer_, weights);
}

Schedule::Schedule(const Shape& s, long width, long size, long rows, long steps, const int64_t* lengths, int threads) {
    if (lengths && std::all_of(lengths, lengths + rows, [=](int64_t n) { return n == steps; })) lengths = nullptr;
    for (long r = 0; r < rows; r++) frames_ += lengths ? lengths[r] : steps;
    const long units = round_up(s.hidden, width), panels = units / width;
    const double cost = double(gates(s.kind)) * double(s.hidden) * double(s.inputs + s.outputs);
    const long weights = (s.inputs + s.outputs) * units * gates(s.kind) * size;
    threads = int(std::min<double>(threads, double(frames_) * cost / WORTH_A_THREAD + 1));
    const bool units_can = !s.norm && !s.projected && panels >= 2 * threads &&
                           double(frames_) / double(std::max(steps, 1L)) * cost > WORTH_A_MEETING;
    long parts = 1;
    if (threads > 1 && units_can && (weights > LARGE_WEIGHTS || rows < ROWS_A_THREAD * threads)) {
        threads_ = threads, one_team_ = true;
    } else {
        threads_ = int(std::min<long>(threads, std::max(rows, 1L)));
        parts = threads_;
        if (weights <= LARGE_WEIGHTS) {
            const long most = std::max(1L, PART_BYTES / (slots(s.kind) * units * size) / GROUP) * GROUP;
            parts = round_up((rows + most - 1) / most, threads_);
        }
        parts = std::min(parts, rows);
    }
    // Rows of unlike lengths are dealt out, the longest first, so that the parts are alike.
    std::vector<int64_t> sorted(size_t(lengths ? rows : 0));
    for (size_t i = 0; i < sorted.size(); i++) sorted[i] = int64_t(i);
    std::stable_sort(sorted.begin(), sorted.end(), [=](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    memory_.resize(size_t(lengths ? 2 * rows + parts * (2 * steps + 1) + steps + 1 : 0));
    int64_t* at = memory_.data();
    int64_t* all = at;
    for (long t = 0, alive = rows; lengths && t < steps; t++) {
        while (alive > 0 && lengths[sorted[size_t(alive - 1)]] <= t) alive--;
        all[t + 1] = all[t] + alive;  // all[0] is 0: the memory is new
    }
    if (lengths) at += steps + 1;
    long row = 0;
    for (long i = 0; i < parts; i++) {
        if (!lengths) {
            const long n = rows * (i + 1) / parts - row;
            parts_.push_back({n, steps, row, nullptr, nullptr, nullptr, nullptr, rows, row, 1, nullptr});
            row += n;
            continue;
        }
        const long n = (rows - i + parts - 1) / parts;
        int64_t *order = at, *length = at + n, *active = at + 2 * n;
        for (long k = 0; k < n; k++) order[k] = sorted[size_t(i + k * parts)], length[k] = lengths[order[k]];
        const long last = n ? length[0] : 0;
        int64_t* before = active + last;
        before[0] = 0;
        for (long t = 0, alive = n; t < last; t++) {
            while (alive > 0 && length[alive - 1] <= t) alive--;
            active[t] = alive, before[t + 1] = before[t] + alive;
        }
        parts_.push_back({n, last, 0, order, length, active, before, rows, i, parts, all});
        at = before + last + 1;
    }
}

template <class F>
long saved_size(const Shape& s, const Schedule& schedule, long rows, long steps, long every) {
    const long units = round_up(s.hidden, engine<F>().width);
    const long cells = s.kind == Kind::lstm ? (every ? rows * (steps / every) : schedule.frames()) * units : 0;
    Layer<F> l{};
    l.kind = s.kind, l.norm = s.norm, l.panels = units / engine<F>().width;
    return (every ? 0 : schedule.frames() * engine<F>().frame_size(l)) + cells;
}

namespace {

// Gates and cells in the call's memory.
template <class F>
void place(const Layer<F>& l, const Schedule& schedule, Forward<F>& f) {
    if (!f.saved) return;
    if (l.kind == Kind::lstm) f.kept = f.saved + (f.every ? 0 : schedule.frames() * engine<F>().frame_size(l));
    if (f.every) f.saved = nullptr;
}

// work(part, team, memory) for each part; `need(rows, members)` is the memory it wants.
template <class F, class Need, class Work>
void over_parts(const Schedule& schedule, Need need, Work work) {
    Barrier barrier;
    F* shared = schedule.one_team() ? scratch<F>(need(schedule.parts()[0].rows, schedule.threads())) : nullptr;
    std::exception_ptr failed;  // no exception may pass through the pool
    std::mutex lock;
    auto member = [&](int id, int size) {
        try {
            if (shared) return work(schedule.parts()[0], Team{id, size, &barrier}, id, shared);
            for (size_t i = size_t(id); i < schedule.parts().size(); i += size_t(size))
                work(schedule.parts()[i], Team{}, id, scratch<F>(need(schedule.parts()[i].rows, 1)));
        } catch (...) {
            const std::lock_guard<std::mutex> guard(lock);
            failed = std::current_exception();
        }
    };
    run_on_threads(
        schedule.threads(), [](void* data, int id, int size) { (*static_cast<decltype(member)*>(data))(id, size); },
        &member);
    if (failed) std::rethrow_exception(failed);
}

}  // namespace

template <class F>
void forward(const Layer<F>& l, const Schedule& schedule, Forward<F> run) {
    const Engine<F>& e = engine<F>();
    use_huge_pages(run.y, size_t(schedule.frames() * l.outputs) * sizeof(F));
    place(l, schedule, run);
    over_parts<F>(
        schedule, [&](long rows, int team) { return e.forward_work(l, rows, team); },
        [&](const Plan& plan, Team team, int, F* memory) {
            Forward<F> f = run;
            f.work = memory;
            e.forward(l, f, plan, team);
        });
}

template <class F>
void backward(const Layer<F>& l, const Schedule& schedule, Backward<F> run, const Gradients<F>& gradients) {
    const Engine<F>& e = engine<F>();
    place(l, schedule, run.run);
    if (run.dx) use_huge_pages(run.dx, size_t(schedule.frames() * l.inputs) * sizeof(F));
    const long size = round_up(e.sums_size(l), 16);
    const int accounts = schedule.one_team() ? 1 : schedule.threads();
    static thread_local Buffer<F> sums;
    sums.grow(size * accounts);
    F* all = sums.data();
    std::memset(all, 0, sizeof(F) * size_t(size * accounts));
    over_parts<F>(
        schedule, [&](long rows, int team) { return e.backward_work(l, rows, run.run.every, team); },
        [&](const Plan& plan, Team team, int id, F* memory) {
            Backward<F> b = run;
            b.run.work = memory;
            b.sums = all + (schedule.one_team() ? 0 : id) * size;
            e.backward(l, b, plan, team);
        });
    for (int i = 0; i < accounts; i++) e.unpack(l, all + i * size, gradients);
}

void Stack::add(long inputs, long hidden, const Weights<float>& weights) {
    layers_.emplace_back(Shape{kind_, inputs, hidden, hidden, false, false, false}, weights,
                         Packed<float>::Uses{true, false, false});
}

void Stack::run(const float* x, long rows, long steps, const int64_t* lengths, const float* h, const float* c, float* y,
                float* hn, float* cn) const {
    const long H = hidden();
    // Each layer reads what the last one wrote; two buffers in turn, the top layer into y.
    thread_local Buffer<float> between[2];
    const float* from = x;
    for (long i = 0; i < depth(); i++) {
        const Layer<float>& l = layers_[size_t(i)].layer();
        float* to = y;
        if (i + 1 < depth()) {
            between[i % 2].grow(rows * steps * H);
            to = between[i % 2].data();
        }
        Forward<float> f{};
        f.steps = steps, f.frames = {nullptr, 1, steps};
        f.x = from, f.y = to;
        f.h0 = h + i * rows * H, f.hn = hn + i * rows * H;
        if (c) f.c0 = c + i * rows * H, f.cn = cn + i * rows * H;
        const Schedule schedule(Shape{kind_, l.inputs, H, H, false, false, false}, engine<float>().width, sizeof(float),
                                rows, steps, lengths, 1);
        if (lengths) std::memset(to, 0, sizeof(float) * size_t(rows * steps * H));
        forward(l, schedule, f);
        from = to;
    }
}

LinearMap::LinearMap(const float* weight, const float* bias, long outputs, long inputs)
    : outputs_(outputs), inputs_(inputs) {
    const long wide = round_up(outputs, engine<float>().width);
    weight_.grow(wide * inputs + 16);
    bias_.grow(wide + 16);
    engine<float>().pack_linear(weight, outputs, inputs, weight_.data());
    std::memset(bias_.data(), 0, sizeof(float) * size_t(wide));
    if (bias) std::copy(bias, bias + outputs, bias_.data());
}

void LinearMap::run(const float* x, long rows, float* y) const {
    float* work = scratch<float>(128 * round_up(outputs_, engine<float>().width));
    engine<float>().linear(x, rows, inputs_, weight_.data(), bias_.data(), outputs_, y, work);
}

void attend(const Attend<float>& query) { engine<float>().attend(query); }

void log_softmax(const float* x, long rows, long size, float* y) { engine<float>().log_softmax(x, rows, size, y); }

template class Buffer<float>;
template class Buffer<double>;
template class Packed<float>;
template class Packed<double>;
template long saved_size<float>(const Shape&, const Schedule&, long, long, long);
template long saved_size<double>(const Shape&, const Schedule&, long, long, long);
template void forward<float>(const Layer<float>&, const Schedule&, Forward<float>);
template void forward<double>(const Layer<double>&, const Schedule&, Forward<double>);
template void backward<float>(const Layer<float>&, const Schedule&, Backward<float>, const Gradients<float>&);
template void backward<double>(const Layer<double>&, const Schedule&, Backward<double>, const Gradients<double>&);

}  // namespace recurra
