#include "model.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>

namespace recurra {
namespace {

constexpr double WORTH_A_THREAD = 2e6;  // multiply-adds; starting a thread costs as much as about this many

long round_up(long n, long to) { return (n + to - 1) / to * to; }

// RECURRA_ISA=portable|avx2|avx512 asks for less than the machine has (to compare, or to reproduce another machine's
// bits).
bool allowed(const char* isa) {
    const char* most = std::getenv("RECURRA_ISA");
    if (!most || !*most) return true;
    const std::string m = most, i = isa;
    return m == "avx512" || (m == "avx2" && i == "avx2");
}

template <class F>
const Engine<F>& pick(const Engine<F>& portable_engine, [[maybe_unused]] const Engine<F>* a,
                      [[maybe_unused]] const Engine<F>* b) {
#ifdef RECURRA_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && allowed("avx512")) return *b;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && allowed("avx2")) return *a;
#endif
    return portable_engine;
}

template <class F>
F* scratch(long n) {  // one a thread, kept: a step of a live stream allocates nothing
    thread_local Buffer<F> memory;
    memory.grow(n);
    return memory.data();
}

// work(part, first row, rows) on `parts` threads, this one included.
template <class Work>
void over_rows(long rows, int parts, Work work) {
    std::vector<std::thread> others;
    for (int i = 1; i < parts; i++)
        others.emplace_back([=] { work(i, rows * i / parts, rows * (i + 1) / parts - rows * i / parts); });
    work(0, 0, rows / parts);
    for (auto& thread : others) thread.join();
}

template <class F>
int useful_threads(const Layer<F>& l, long rows, long steps, int threads) {
    const double work =
        double(rows) * double(steps) * double(gates(l.kind)) * double(l.hidden) * double(l.inputs + l.hidden);
    const long most = std::min<long>({long(threads), rows, long(work / WORTH_A_THREAD) + 1});
    return int(std::max<long>(most, 1));
}

// The run of the rows from `first` on.
template <class F>
Forward<F> rows_of(const Layer<F>& l, Forward<F> f, long first, long rows) {
    const long H = l.hidden;
    auto shift = [](auto*& p, long n) {
        if (p) p += n;
    };
    f.rows = rows;
    shift(f.x, first * f.x_row), shift(f.lengths, first), shift(f.reset, first * f.reset_row);
    shift(f.h0, first * H), shift(f.c0, first * H), shift(f.hn, first * H), shift(f.cn, first * H);
    shift(f.y, first * f.y_row), shift(f.cs, first * f.y_row);
    shift(f.saved, saved_size<F>(l.kind, first, f.steps, H));
    return f;
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
    size_ = n;
}

template <class F>
Packed<F>::Packed(Kind kind, long inputs, long hidden, const Weights<F>& weights, bool transposed) {
    const long W = engine<F>().width, P = round_up(hidden, W) / W, row = P * slots(kind) * W;
    const long wx = P * inputs * gates(kind) * W, wh = P * hidden * gates(kind) * W;
    const long wxt = transposed ? row * round_up(inputs, W) : 0, wht = transposed ? row * P * W : 0;
    memory_.grow(round_up(wx, 16) + round_up(wh, 16) + round_up(row, 16) + round_up(wxt, 16) + wht + 16);
    F* at = memory_.data();
    auto cut = [&at](long n) {
        F* p = at;
        at += round_up(n, 16);
        return p;
    };
    layer_ = {kind, inputs, hidden, P, cut(wx), cut(wh), cut(row), cut(wxt), cut(wht)};
    engine<F>().pack(layer_, weights);
    if (transposed) engine<F>().pack_transposed(layer_, weights);
}

template <class F>
long saved_size(Kind kind, long rows, long steps, long hidden) {
    return rows * steps * round_up(hidden, engine<F>().width) * slots(kind);
}

template <class F>
void forward(const Layer<F>& layer, Forward<F> run, int threads) {
    over_rows(run.rows, useful_threads(layer, run.rows, run.steps, threads), [&layer, run](int, long first, long rows) {
        Forward<F> part = rows_of(layer, run, first, rows);
        part.work = scratch<F>(engine<F>().forward_work(layer, rows, run.steps));
        engine<F>().forward(layer, part);
    });
}

template <class F>
void backward(const Layer<F>& layer, Backward<F> run, int threads) {
    const long G = gates(layer.kind) * layer.hidden, ih = G * layer.inputs, hh = G * layer.hidden,
               all = ih + hh + 2 * G;
    const Forward<F>& f = run.run;
    const int parts = useful_threads(layer, f.rows, f.steps, threads);
    Buffer<F> sums(all * parts);
    std::memset(sums.data(), 0, sizeof(F) * size_t(all * parts));
    over_rows(f.rows, parts, [&, run](int part, long first, long rows) {
        Backward<F> b = run;
        auto shift = [](auto*& p, long n) {
            if (p) p += n;
        };
        b.run = rows_of(layer, run.run, first, rows);
        shift(b.dy, first * f.y_row), shift(b.dcs, first * f.y_row), shift(b.dx, first * f.x_row);
        shift(b.dhn, first * layer.hidden), shift(b.dcn, first * layer.hidden);
        shift(b.dh0, first * layer.hidden), shift(b.dc0, first * layer.hidden);
        b.dih = sums.data() + part * all;
        b.dhh = b.dih + ih, b.dbih = b.dhh + hh, b.dbhh = b.dbih + G;
        b.work = scratch<F>(engine<F>().backward_work(layer, rows, f.steps));
        engine<F>().backward(layer, b);
    });
    for (int part = 0; part < parts; part++) {
        const F* from = sums.data() + part * all;
        auto add = [&from](F* to, long n) {
            for (long i = 0; i < n; i++) to[i] += from[i];
            from += n;
        };
        add(run.dih, ih), add(run.dhh, hh), add(run.dbih, G), add(run.dbhh, G);
    }
}

void Stack::add(long inputs, long hidden, const Weights<float>& weights) {
    layers_.emplace_back(kind_, inputs, hidden, weights, false);
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
        f.rows = rows, f.steps = steps, f.lengths = lengths;
        f.x = from, f.x_row = steps * l.inputs, f.x_step = l.inputs;
        f.y = to, f.y_row = steps * H, f.y_step = H;
        f.h0 = h + i * rows * H, f.hn = hn + i * rows * H;
        if (c) f.c0 = c + i * rows * H, f.cn = cn + i * rows * H;
        forward(l, f, 1);
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

template class Buffer<float>;
template class Buffer<double>;
template class Packed<float>;
template class Packed<double>;
template long saved_size<float>(Kind, long, long, long);
template long saved_size<double>(Kind, long, long, long);
template void forward<float>(const Layer<float>&, Forward<float>, int);
template void forward<double>(const Layer<double>&, Forward<double>, int);
template void backward<float>(const Layer<float>&, Backward<float>, int);
template void backward<double>(const Layer<double>&, Backward<double>, int);

}  // namespace recurra
