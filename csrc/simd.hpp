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
    static constexpr int W = BYTES / 4;
    static constexpr float EXP_MAX = 87.0f, TANH_MAX = 10.0f;
};

template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(BYTES)));
    typedef int64_t I __attribute__((vector_size(BYTES)));
    static constexpr int W = BYTES / 8;
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
#if defined(__AVX512F__)
    if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
    if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
#endif
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
// Past the caches, for what is read much later. p is aligned to BYTES.
template <class F>
RECURRA_INLINE void store_past(F* p, Vec<F> v) {
#if defined(__AVX512F__)
    _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif defined(__AVX2__)
    _mm256_stream_si256((__m256i*)p, (__m256i)v);
#else
    store(p, v);
#endif
}
// Into the L2 cache: what is fetched ahead is mostly larger than L1.
RECURRA_INLINE void prefetch([[maybe_unused]] const void* p) { __builtin_prefetch(p, 0, 2); }
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

// v[i][j] <-> v[j][i]: blocks of halving size are exchanged across the diagonal.
template <class F, int D = WIDTH<F> / 2>
RECURRA_INLINE void transpose(Vec<F> (&v)[WIDTH<F>]) {
    using I = typename Simd<F>::I;
    constexpr int W = WIDTH<F>;
    I upper, lower;
#pragma GCC unroll 16
    for (int j = 0; j < W; j++) upper[j] = j & D ? W + j - D : j, lower[j] = j & D ? W + j : j + D;
#pragma GCC unroll 16
    for (int i = 0; i < W; i++)
        if (!(i & D)) {
            const Vec<F> a = v[i], b = v[i + D];
            v[i] = __builtin_shuffle(a, b, upper), v[i + D] = __builtin_shuffle(a, b, lower);
        }
    if constexpr (D > 1) transpose<F, D / 2>(v);
}

// x > high ? high : x and x < low ? low : x in one instruction each where there is one; NaN stays NaN.
template <class F>
RECURRA_INLINE Vec<F> at_most(Vec<F> x, F high) {
    const Vec<F> h = splat<F>(high);
#if defined(__AVX512F__)
    if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_min_ps((__m512)h, (__m512)x);
    if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_min_pd((__m512d)h, (__m512d)x);
#elif defined(__AVX2__)
    if constexpr (sizeof(F) == 4) return (Vec<F>)_mm256_min_ps((__m256)h, (__m256)x);
    if constexpr (sizeof(F) == 8) return (Vec<F>)_mm256_min_pd((__m256d)h, (__m256d)x);
#endif
    return x > h ? h : x;
}
template <class F>
RECURRA_INLINE Vec<F> at_least(Vec<F> x, F low) {
    const Vec<F> l = splat<F>(low);
#if defined(__AVX512F__)
    if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_max_ps((__m512)l, (__m512)x);
    if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_max_pd((__m512d)l, (__m512d)x);
#elif defined(__AVX2__)
    if constexpr (sizeof(F) == 4) return (Vec<F>)_mm256_max_ps((__m256)l, (__m256)x);
    if constexpr (sizeof(F) == 8) return (Vec<F>)_mm256_max_pd((__m256d)l, (__m256d)x);
#endif
    return x < l ? l : x;
}

// 1 / x, for x >= 1 and finite
RECURRA_INLINE Vec<float> reciprocal(Vec<float> x) {
#if defined(__AVX512F__)
    const Vec<float> r = (Vec<float>)_mm512_rcp14_ps((__m512)x);  // 14 bits, doubled by one step of Newton's method
    return fma(r, fma(-x, r, splat<float>(1)), r);
#else
    return splat<float>(1) / x;
#endif
}
RECURRA_INLINE Vec<double> reciprocal(Vec<double> x) { return splat<double>(1) / x; }

// e^x = scale + scale * part, |x| <= EXP_MAX; N of them side by side, so that their chains of operations overlap.
template <class F, int N>
struct Exps {
    Vec<F> scale[N], part[N];
};
#define RECURRA_EACH _Pragma("GCC unroll 16") for (int i = 0; i < N; i++)

// x log2 e = n + f, |f| <= 1/2: scale = 2^n, part = 2^f - 1 by a polynomial (Chebyshev fit of (2^f - 1) / f, 2e-8)
template <int N>
RECURRA_INLINE Exps<float, N> exp_parts(const Vec<float> (&x)[N]) {
    constexpr float LOG2E = 1.44269504088896341f, MAGIC = 0x1.8p23f;
    constexpr float C[6] = {0x1.62e43p-1f,  0x1.ebfbep-3f,   0x1.c6af6cp-5f,
                            0x1.3b2a1cp-7f, 0x1.5f08aap-10f, 0x1.444014p-13f};
    using I = Simd<float>::I;
    Vec<float> t[N], f[N], p[N];
    Exps<float, N> e;
    RECURRA_EACH t[i] = fma(x[i], splat<float>(LOG2E), splat<float>(MAGIC));  // its low bits are n
    RECURRA_EACH f[i] = fma(x[i], splat<float>(LOG2E), splat<float>(MAGIC) - t[i]);
    RECURRA_EACH p[i] = fma(splat<float>(C[5]), f[i], splat<float>(C[4]));
    RECURRA_EACH p[i] = fma(p[i], f[i], splat<float>(C[3]));
    RECURRA_EACH p[i] = fma(p[i], f[i], splat<float>(C[2]));
    RECURRA_EACH p[i] = fma(p[i], f[i], splat<float>(C[1]));
    RECURRA_EACH p[i] = fma(p[i], f[i], splat<float>(C[0]));
    RECURRA_EACH e.part[i] = p[i] * f[i];
    RECURRA_EACH e.scale[i] = (Vec<float>)(((I)t[i] << 23) + 0x3f800000);
    return e;
}

template <class F>
constexpr F inverse_factorial(int n) {
    F x = 1;
    for (int i = 2; i <= n; i++) x /= F(i);
    return x;
}

// x = n ln 2 + r: scale = 2^n, part = e^r - 1 by its Taylor series (|r| <= 0.347)
template <int N>
RECURRA_INLINE Exps<double, N> exp_parts(const Vec<double> (&x)[N]) {
    constexpr double MAGIC = 0x1.8p52, LOG2E = 1.4426950408889634074;
    constexpr double LN2_HI = 6.93147180369123816490e-01, LN2_LO = 1.90821492927058770002e-10;
    constexpr int TERMS = 13;
    using I = Simd<double>::I;
    Exps<double, N> e;
    RECURRA_EACH {
        const Vec<double> magic = splat<double>(MAGIC);
        const Vec<double> t = fma(x[i], splat<double>(LOG2E), magic);  // its low bits are n, rounded to nearest
        const Vec<double> n = t - magic;
        Vec<double> r = fma(n, splat<double>(-LN2_HI), x[i]);
        r = fma(n, splat<double>(-LN2_LO), r);
        Vec<double> p = splat<double>(inverse_factorial<double>(TERMS));
#pragma GCC unroll 16
        for (int k = TERMS - 1; k >= 1; k--) p = fma(p, r, splat<double>(inverse_factorial<double>(k)));
        e.part[i] = p * r;
        e.scale[i] = (Vec<double>)(((I)t - (I)magic + 1023) << 52);
    }
    return e;
}

// x <- sigmoid(x) or, where TANH says so, tanh(x) = (e^2x - 1) / (e^2x + 1), with e^2x - 1 free of cancellation near 0
template <class F, bool... TANH>
RECURRA_INLINE void activate(Vec<F> (&x)[sizeof...(TANH)]) {
    constexpr int N = sizeof...(TANH);
    constexpr bool tanh[N] = {TANH...};
    Vec<F> z[N], r[N];
    RECURRA_EACH z[i] = at_most<F>(x[i], tanh[i] ? Simd<F>::TANH_MAX : Simd<F>::EXP_MAX);
    RECURRA_EACH z[i] = at_least<F>(z[i], tanh[i] ? -Simd<F>::TANH_MAX : -Simd<F>::EXP_MAX);
    RECURRA_EACH z[i] = tanh[i] ? z[i] + z[i] : -z[i];
    const Exps<F, N> e = exp_parts(z);
    const Vec<F> one = splat<F>(1);
    RECURRA_EACH z[i] = fma(e.scale[i], e.part[i], e.scale[i] - one);  // e^z - 1
    RECURRA_EACH r[i] = reciprocal(z[i] + splat<F>(2));
    RECURRA_EACH x[i] = tanh[i] ? z[i] * r[i] : r[i];
}

template <class F>
RECURRA_INLINE Vec<F> sigmoid(Vec<F> x) {
    Vec<F> v[1] = {x};
    activate<F, false>(v);
    return v[0];
}
template <class F>
RECURRA_INLINE Vec<F> tanh(Vec<F> x) {
    Vec<F> v[1] = {x};
    activate<F, true>(v);
    return v[0];
}

}  // namespace recurra::RECURRA_ISA
