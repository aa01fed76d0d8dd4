// The sums of one group of panels of a step, in each format of the weights, for one instruction set.
// float32: every sum is one chain of fma over bias, x_0, x_1, ..., h_0, h_1, ..., as in product.hpp, so a step gives
// the bits of the layer over time. bfloat16: the same chain, the weights rounded to bfloat16. int8: a weight is q *
// (largest of its row) / 127, an h (|h| <= 1) is q / 127; the sums of q are exact integers.
#pragma once
#include <array>
#include <utility>

#include "simd.hpp"
#include "step.hpp"

namespace recurra::RECURRA_ISA {

using V = Vec<float>;
typedef int32_t Words __attribute__((vector_size(sizeof(V))));
constexpr long W = WIDTH<float>;
// A register tile: one row (or FEW) by 8 vectors, or up to TILE_ROWS rows by 4.
constexpr int TILE_ROWS = sizeof(V) == 64 ? 6 : 3, FEW = TILE_ROWS / 3;

// What a matrix is multiplied by: floats, or numbers of 8 bits (q + 128) and for each row 0, or NaN where it held one.
struct Operand {
    const float* a;
    long lda;
    const uint8_t* q;
    long ldq;
    const float* nan;
};

// sums [M][ld] += operand [M rows] @ NV vectors of one group of the matrix, which starts at the vector `at`
template <int M, int NV>
__attribute__((noinline)) void add_float32(const Operand& x, const Matrix& m, long at, float* sums, long ld) {
    V acc[M][NV];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) acc[i][n] = load(sums + i * ld + n * W);
    const float* w = reinterpret_cast<const float*>(m.words) + at * W * m.words_per_row;
    const float* a = x.a;
    const long lda = x.lda;
    for (long k = 0; k < m.K; k++, w += NV * W) {
        V xs[M];
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) xs[i] = splat<float>(a[i * lda + k]);
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) {
            // a group of weights may outgrow the L1 cache, and the next block of rows reads it again from the L2
            if (M > FEW) __builtin_prefetch(w + (8 * NV + n) * W);
            const V v = load(w + n * W);
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) acc[i][n] = fma(xs[i], v, acc[i][n]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) store(sums + i * ld + n * W, acc[i][n]);
}

RECURRA_INLINE Words load_words(const uint32_t* p) {
    Words v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <int M, int NV>
__attribute__((noinline)) void add_bfloat16(const Operand& x, const Matrix& m, long at, float* sums, long ld) {
    V acc[M][NV];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) acc[i][n] = load(sums + i * ld + n * W);
    const uint32_t* w = m.words + at * W * m.words_per_row;
    const float* a = x.a;
    const long lda = x.lda;
    for (long k = 0; k + 1 < m.K; k += 2, w += NV * W) {
        V even[M], odd[M];
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) even[i] = splat<float>(a[i * lda + k]), odd[i] = splat<float>(a[i * lda + k + 1]);
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) {
            const Words pair = load_words(w + n * W);
            const V low = (V)(pair << 16), high = (V)(pair & int32_t(0xffff0000));
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) acc[i][n] = fma(odd[i], high, fma(even[i], low, acc[i][n]));
        }
    }
    if (m.K % 2)
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) {
            const V low = (V)(load_words(w + n * W) << 16);
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) acc[i][n] = fma(splat<float>(a[i * lda + m.K - 1]), low, acc[i][n]);
        }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) store(sums + i * ld + n * W, acc[i][n]);
}

// sum + the four products of the bytes of `x` (unsigned) and of each word of w (signed), exactly
RECURRA_INLINE Words dot4(Words sum, uint32_t x, Words w) {
#if defined(__AVX512VNNI__)
    return (Words)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(int(x)), (__m512i)w);
#elif defined(__AVX2__) && !defined(__AVX512F__)  // (vpmaddubsw would saturate)
    const __m256i odd = _mm256_srai_epi16((__m256i)w, 8), even = _mm256_srai_epi16(_mm256_slli_epi16((__m256i)w, 8), 8);
    const __m256i x_even = _mm256_set1_epi32(int(x & 0x00ff00ff)), x_odd = _mm256_set1_epi32(int(x >> 8 & 0x00ff00ff));
    return sum + (Words)_mm256_madd_epi16(even, x_even) + (Words)_mm256_madd_epi16(odd, x_odd);
#else
    sum += ((w << 24) >> 24) * int32_t(x & 255);
    sum += ((w << 16) >> 24) * int32_t(x >> 8 & 255);
    sum += ((w << 8) >> 24) * int32_t(x >> 16 & 255);
    return sum + (w >> 24) * int32_t(x >> 24);
#endif
}

template <int M, int NV>
__attribute__((noinline)) void add_int8(const Operand& x, const Matrix& m, long at, float* sums, long ld) {
    Words acc[M][NV];
#pragma GCC unroll 8
    for (int n = 0; n < NV; n++)
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) acc[i][n] = load_words(reinterpret_cast<const uint32_t*>(m.offset) + (at + n) * W);
    const uint32_t* w = m.words + at * W * m.words_per_row;
    for (long k = 0; k < m.words_per_row; k++, w += NV * W) {
        uint32_t xs[M];
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) memcpy(&xs[i], x.q + i * x.ldq + 4 * k, 4);
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) {
            const Words v = load_words(w + n * W);
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) acc[i][n] = dot4(acc[i][n], xs[i], v);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int n = 0; n < NV; n++) {
            float* to = sums + i * ld + n * W;
            const V sum = load(to) + splat<float>(x.nan[i]);
            store(to, fma(__builtin_convertvector(acc[i][n], V), load(m.scale + (at + n) * W), sum));
        }
}

using Add = void (*)(const Operand&, const Matrix&, long at, float* sums, long ld);
template <int M, int NV>
constexpr std::array<Add, 3> adds() {
    if constexpr (M <= (NV > 4 ? FEW : TILE_ROWS))
        return {add_float32<M, NV>, add_bfloat16<M, NV>, add_int8<M, NV>};
    else
        return {};
}
template <int M, int... NV>
constexpr auto adds_of_rows(std::integer_sequence<int, NV...>) {
    return std::array{adds<M, NV + 1>()...};
}
template <int... M>
constexpr auto all_adds(std::integer_sequence<int, M...>) {
    return std::array{adds_of_rows<M + 1>(std::make_integer_sequence<int, 8>())...};
}
constexpr auto ADD = all_adds(std::make_integer_sequence<int, TILE_ROWS>());  // [rows - 1][vectors - 1][format]

}  // namespace recurra::RECURRA_ISA
