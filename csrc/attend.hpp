// Attention, a query at a time, and log softmax, a row at a time: the bits of a row depend on that row alone.
#pragma once
#include <algorithm>
#include <cmath>

#include "engine.hpp"
#include "simd.hpp"

namespace recurra::RECURRA_ISA {

template <class F>
RECURRA_INLINE F sum_of(Vec<F> v) {
    F sum = v[0];
    for (int i = 1; i < WIDTH<F>; i++) sum += v[i];
    return sum;
}

// e^x for x <= 0; below -EXP_MAX as at it
template <class F>
RECURRA_INLINE Vec<F> exp_below(Vec<F> x) {
    Vec<F> v[1] = {at_least<F>(x, -Simd<F>::EXP_MAX)};
    const Exps<F, 1> e = exp_parts(v);
    return fma(e.scale[0], e.part[0], e.scale[0]);
}

// The vectors i = 0 ... 3 that begin at u + i W, as far as there are numbers: f(i, place, numbers).
template <class F, class Each>
RECURRA_INLINE void four(long u, long size, Each f) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        if (const long at = u + i * WIDTH<F>; at < size) f(i, at, std::min<long>(WIDTH<F>, size - at));
}

template <class F>
F score(const Attend<F>& a, long s) {
    const F* key = a.keys + s * a.size;
    Vec<F> total{};
    for (long u = 0; u < a.size; u += 4 * WIDTH<F>) {
        Vec<F> x[4] = {};
        if (!a.v) {
            four<F>(u, a.size, [&](int, long at, long n) {
                total = fma(load_first(a.query + at, n), load_first(key + at, n), total);
            });
            continue;
        }
        four<F>(u, a.size, [&](int i, long at, long n) {
            x[i] = load_first(a.query + at, n) + load_first(key + at, n);
            if (a.cover) x[i] = fma(splat<F>(a.past[s]), load_first(a.cover + at, n), x[i]);
        });
        activate<F, true, true, true, true>(x);
        four<F>(u, a.size, [&](int i, long at, long n) { total = fma(load_first(a.v + at, n), x[i], total); });
    }
    return sum_of<F>(total) * a.scale;
}

template <class F>
void attend(const Attend<F>& a) {
    for (long s = 0; s < a.steps; s++) a.weights[s] = score(a, s);
    const Vec<F> most = splat<F>(*std::max_element(a.weights, a.weights + a.steps));
    F total = 0;
    for (long s = 0; s < a.steps; s += WIDTH<F>) {
        const long n = std::min<long>(WIDTH<F>, a.steps - s);
        store_first(a.weights + s, exp_below<F>(load_first(a.weights + s, n) - most), n);
        for (long i = 0; i < n; i++) total += a.weights[s + i];
    }
    for (long s = 0; s < a.steps; s++) a.weights[s] /= total;
    for (long u = 0; u < a.memory; u += 4 * WIDTH<F>) {
        Vec<F> mean[4] = {};
        for (long s = 0; s < a.steps; s++)
            four<F>(u, a.memory, [&](int i, long at, long n) {
                mean[i] = fma(splat<F>(a.weights[s]), load_first(a.values + s * a.memory + at, n), mean[i]);
            });
        four<F>(u, a.memory, [&](int i, long at, long n) { store_first(a.context + at, mean[i], n); });
    }
}

// Sums of at most BLOCK vectors in F, and of those in double.
template <class F>
void log_softmax(const F* x, long rows, long size, F* y) {
    constexpr long BLOCK = 64 * WIDTH<F>;
    for (long r = 0; r < rows; r++, x += size, y += size) {
        const F most = *std::max_element(x, x + size);
        double total = 0;
        for (long first = 0; first < size; first += BLOCK) {
            Vec<F> sum{};
            const long last = std::min(size, first + BLOCK);
            long u = first;
            for (; u + WIDTH<F> <= last; u += WIDTH<F>) sum += exp_below<F>(load(x + u) - splat<F>(most));
            total += double(sum_of<F>(sum));
            for (; u < last; u++) total += double(exp_below<F>(splat<F>(x[u] - most))[0]);
        }
        const F log_total = F(std::log(total));
        for (long u = 0; u < size; u++) y[u] = (x[u] - most) - log_total;
    }
}

}  // namespace recurra::RECURRA_ISA
