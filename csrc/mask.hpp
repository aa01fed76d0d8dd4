// Random masks from counters: a number for each (seed, stream, step, row, unit), so that a mask is computed again
// instead of kept. The same numbers as src/recurra/kernels/masks.py.
#pragma once
#include <cstdint>

#include "simd.hpp"

namespace recurra::RECURRA_ISA {

inline uint32_t mixed(uint32_t x) {  // a 32-bit hash with low bias (Wellons 2018)
    x ^= x >> 16, x *= 0x21f0aaadu;
    x ^= x >> 15, x *= 0x735a2d97u;
    return x ^ (x >> 15);
}

inline uint32_t mask_key(uint64_t seed, uint32_t stream, uint32_t step, uint32_t row) {
    uint32_t k = mixed(uint32_t(seed) + 0x9e3779b9u * stream);
    k = mixed(k ^ uint32_t(seed >> 32));
    return mixed(mixed(k + step) + row);
}

inline uint32_t mask_threshold(double p) { return uint32_t(p * 16777216.0); }

// 1 where the mask hits with the threshold's probability, else 0, for units [unit, unit + width).
template <class F>
RECURRA_INLINE Vec<F> hits(uint32_t key, uint32_t unit, uint32_t threshold) {
    Vec<F> v;
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH<F>; i++) v[i] = (mixed(key + unit + uint32_t(i)) >> 8) < threshold ? F(1) : F(0);
    return v;
}
#if defined(__AVX2__)
template <>
RECURRA_INLINE Vec<float> hits<float>(uint32_t key, uint32_t unit, uint32_t threshold) {
    typedef uint32_t U __attribute__((vector_size(BYTES)));
    U x;
    for (int i = 0; i < WIDTH<float>; i++) x[i] = uint32_t(i);
    x += key + unit;
    x ^= x >> 16, x *= 0x21f0aaadu;
    x ^= x >> 15, x *= 0x735a2d97u;
    x ^= x >> 15;
    return (x >> 8) < threshold ? splat<float>(1) : Vec<float>{};
}
#endif

}  // namespace recurra::RECURRA_ISA
