// Vectors of one instruction set, and our own exp, sigmoid and tanh over them.
// Why our own: a library's vector and scalar versions differ in the last bit, so a result would depend on its place in
// the array.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define RECURRA_INLINE inline __attribute__((always_inline))

namespace recurra::RECURRA_ISA {

#if defined(__AVX512F__)
constexpr int BYTES = 64, MAX_ROWS = 6;  // rows of a register tile: 6 x 4 accumulators + 4 weights fit 32 registers
#elif defined(__AVX2__)
constexpr int BYTES = 32, MAX_ROWS = 3;
#else
constexpr int BYTES = 16, MAX_ROWS = 3;
#endif

template <class F>
struct Simd;

template <>
struct Simd<float> {
    typedef float V __attribute__((vector_size(BYTES)));
    typedef int32_t I __attribute__((vector_size(BYTES)));
    static constexpr int W = BYTES / 4, MANTISSA = 23, BIAS = 127, TERMS = 7;
    static constexpr float MAGIC = 0x1.8p23f, LOG2E = 1.44269504088896341f;
    static constexpr float LN2_HI = 0.693359375f, LN2_LO = -2.12194440e-4f, EXP_MAX = 87.0f, TANH_MAX = 10.0f;
};

template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(BYTES)));
    typedef int64_t I __attribute__((vector_size(BYTES)));
    static constexpr int W = BYTES / 8, MANTISSA = 52, BIAS = 1023, TERMS = 13;
    static constexpr double MAGIC = 0x1.8p52, LOG2E = 1.4426950408889634074;
    static constexpr double LN2_HI = 6.93147180369123816490e-01, LN2_LO = 1.90821492927058770002e-10;
    static constexpr double EXP_MAX = 708.0, TANH_MAX = 20.0;
};

template <class F>
using Vec = typename Simd<F>::V;
template <class F>
constexpr int WIDTH = Simd<F>::W;

template <class F>
RECURRA_INLINE Vec<F> load(const F* p) {
    Vec<F> v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class F>
RECURRA_INLINE void store(F* p, Vec<F> v) {
    memcpy(p, &v, sizeof v);
}
// The first n of a vector; the rest is zero.
template <class F>
RECURRA_INLINE Vec<F> load_first(const F* p, long n) {
    if (n >= WIDTH<F>) return load(p);
    F t[WIDTH<F>] = {};
    for (long i = 0; i < n; i++) t[i] = p[i];
    return load(t);
}
template <class F>
RECURRA_INLINE void store_first(F* p, Vec<F> v, long n) {
    if (n >= WIDTH<F>) return store(p, v);
    F t[WIDTH<F>];
    store(t, v);
    for (long i = 0; i < n; i++) p[i] = t[i];
}
template <class F>
RECURRA_INLINE Vec<F> splat(F x) {
    return x - Vec<F>{};
}

// a * b + c; fused wherever the instruction set can, and then always.
RECURRA_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
RECURRA_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
    return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

template <class F>
constexpr F inverse_factorial(int n) {
    F x = 1;
    for (int i = 2; i <= n; i++) x /= F(i);
    return x;
}

// e^x = scale + scale * part, |x| <= EXP_MAX: x = n ln 2 + r, scale = 2^n, part = e^r - 1 by its Taylor series (|r| <=
// 0.347).
template <class F>
struct Exp {
    Vec<F> scale, part;
};
template <class F>
RECURRA_INLINE Exp<F> exp_parts(Vec<F> x) {
    using S = Simd<F>;
    const Vec<F> magic = splat<F>(S::MAGIC);
    const Vec<F> t = fma(x, splat<F>(S::LOG2E), magic);  // its low bits are n, rounded to nearest
    const Vec<F> n = t - magic;
    Vec<F> r = fma(n, splat<F>(-S::LN2_HI), x);
    r = fma(n, splat<F>(-S::LN2_LO), r);
    Vec<F> p = splat<F>(inverse_factorial<F>(S::TERMS));
#pragma GCC unroll 16
    for (int i = S::TERMS - 1; i >= 1; i--) p = fma(p, r, splat<F>(inverse_factorial<F>(i)));
    typename S::I bits = (typename S::I)t - (typename S::I)magic + S::BIAS;
    return {(Vec<F>)(bits << S::MANTISSA), p * r};
}

template <class F>
RECURRA_INLINE Vec<F> clamp(Vec<F> x, F limit) {  // NaN stays NaN
    const Vec<F> high = splat<F>(limit), low = splat<F>(-limit);
    x = x > high ? high : x;
    return x < low ? low : x;
}

template <class F>
RECURRA_INLINE Vec<F> sigmoid(Vec<F> x) {
    const Exp<F> e = exp_parts<F>(-clamp<F>(x, Simd<F>::EXP_MAX));
    const Vec<F> one = splat<F>(1);
    return one / (one + fma(e.scale, e.part, e.scale));
}

// tanh x = (e^2x - 1) / (e^2x + 1), with e^2x - 1 free of cancellation near 0
template <class F>
RECURRA_INLINE Vec<F> tanh(Vec<F> x) {
    x = clamp<F>(x, Simd<F>::TANH_MAX);
    const Exp<F> e = exp_parts<F>(x + x);
    const Vec<F> m = fma(e.scale, e.part, e.scale - splat<F>(1));
    return m / (m + splat<F>(2));
}

}  // namespace recurra::RECURRA_ISA
