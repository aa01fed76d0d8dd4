// The one matrix product: C [rows][NV vectors] = start + A [rows, K] @ W [K][NV vectors], every element summed in the
// order k = 0, 1, ... by one chain of fma. So its bits depend on its own row and column only, however rows and k are
// blocked.
#pragma once
#include "simd.hpp"

namespace recurra::RECURRA_ISA {

// Weights that stay in the L1 cache across row blocks: 64 x 4 vectors x 64 bytes = 16 KB. AMD's processors multiply
// half as much in a cycle and get it from the L2 cache in time; there sums that never leave their registers are worth
// more (Zen 4: 116 of 118 GF/s against 109).
inline long k_block() {
#if defined(__x86_64__)
    static const long block = __builtin_cpu_is("amd") ? 1024 : 64;
#else
    static const long block = 64;
#endif
    return block;
}

template <class F>
struct Product {
    const F* a;  // element (m, k) at a[m * lda + k]
    long lda;
    const F* w;  // element (k, column) of panel i at w[i * w_panel + k * ldw + column]
    long ldw, w_panel;
    long K;
    const F* start;  // may be c itself
    long ld_start, start_panel;
    F* c;
    long ldc, c_panel;
    const F* soon = nullptr;   // the weights that are wanted next; null: those that follow
    const F* ahead = nullptr;  // or other memory to fetch meanwhile, `ahead_row` numbers for each row
    long ahead_row = 0;
};

// A register tile: M rows by NP panels of NV vectors. `next` is read ahead, a line for each k.
template <class F, int M, int NV, int NP>
__attribute__((noinline)) void tile(const F* a, long lda, const F* w, long ldw, long w_panel, long K, const F* start,
                                    long ld_start, long start_panel, F* c, long ldc, long c_panel, const F* next,
                                    long next_step) {
    constexpr int W = WIDTH<F>, N = NV * NP;
    Vec<F> acc[M][N];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) acc[m][n] = load(start + m * ld_start + (n / NV) * start_panel + (n % NV) * W);
    const F* a3 = a + 3 * lda;
    for (long k = 0; k < K; k++, w += ldw, next += next_step) {
        prefetch(next);
        if constexpr (MAX_ROWS > 3) {  // 32 registers: the weights stay, the rows pass
            Vec<F> v[N];
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) v[n] = load(w + (n / NV) * w_panel + (n % NV) * W);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                const Vec<F> x = splat<F>((m < 3 ? a + m * lda : a3 + (m - 3) * lda)[k]);
#pragma GCC unroll 16
                for (int n = 0; n < N; n++) acc[m][n] = fma(x, v[n], acc[m][n]);
            }
        } else {  // 16 registers: the other way round
            Vec<F> x[M];
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) x[m] = splat<F>(a[m * lda + k]);
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) {
                const Vec<F> v = load(w + (n / NV) * w_panel + (n % NV) * W);
#pragma GCC unroll 16
                for (int m = 0; m < M; m++) acc[m][n] = fma(x[m], v, acc[m][n]);
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) store(c + m * ldc + (n / NV) * c_panel + (n % NV) * W, acc[m][n]);
}

template <class F, int NV, int NP>
RECURRA_INLINE void tile_of(long m, const Product<F>& p, long row, long k, long kk, const F* next, long next_step) {
    const bool first = k == 0;
    const F* start = first ? p.start + row * p.ld_start : p.c + row * p.ldc;
    const long lds = first ? p.ld_start : p.ldc, panel = first ? p.start_panel : p.c_panel;
#define RECURRA_TILE(M)                                                                                               \
    return tile<F, M, NV, NP>(p.a + row * p.lda + k, p.lda, p.w + k * p.ldw, p.ldw, p.w_panel, kk, start, lds, panel, \
                              p.c + row * p.ldc, p.ldc, p.c_panel, next, next_step)
    if (m == 1) RECURRA_TILE(1);
    if (m == 2) RECURRA_TILE(2);
    if constexpr (NV * NP <= 4) {  // else only for one or two rows: more would not fit the registers
        if (m == 3) RECURRA_TILE(3);
        if constexpr (MAX_ROWS > 3) {
            if (m == 4) RECURRA_TILE(4);
            if (m == 5) RECURRA_TILE(5);
            RECURRA_TILE(6);
        }
    }
#undef RECURRA_TILE
}

// NP panels of NV vectors. While one block of weights is at work, the next one is fetched.
template <class F, int NV, int NP>
void panels_of_rows(const Product<F>& p, long rows) {
    constexpr long most = NV * NP > 4 ? 2 : MAX_ROWS;
    const long blocks = (rows + most - 1) / most, height = blocks ? (rows + blocks - 1) / blocks : 1;
    const long pieces = blocks > 1 ? (p.K + k_block() / 2) / k_block() : 1;
    const long step = pieces > 1 ? (p.K + pieces - 1) / pieces : (p.K > 0 ? p.K : 1);
    long k = 0;
    do {
        const long kk = p.K - k < step ? p.K - k : step;
        const F* next = p.soon && k + kk >= p.K ? p.soon : p.w + (k + kk) * p.ldw;
        long quarter = 0;
        for (long row = 0; row < rows; row += height, quarter = (quarter + 1) % 4) {
            const long m = rows - row < height ? rows - row : height;
            if (p.ahead && k == 0)
                tile_of<F, NV, NP>(m, p, row, k, kk, p.ahead + row * p.ahead_row, m * p.ahead_row / kk);
            else
                tile_of<F, NV, NP>(m, p, row, k, kk, next + quarter * kk * WIDTH<F>, WIDTH<F>);
        }
        k += step;
    } while (k < p.K);
}

// Columns [first, last) of A @ W, in vectors; `first` a multiple of four. W is packed in groups of four vectors, the
// last one of `vectors` smaller (see packed_at). C [rows][last - first vectors] = start + the product.
template <class F>
void product_columns(const F* a, long lda, long K, const F* w, long first, long last, const F* start, long ld_start,
                     F* c, long ldc, long rows, long vectors, const F* ahead = nullptr, long ahead_row = 0) {
    constexpr int W = WIDTH<F>;
    for (long q = first; q < last; q += 4) {
        const long nv = vectors - q < 4 ? vectors - q : 4;
        const Product<F> p{a,        lda, w + q * W * K,       nv * W, 0, K,       start + (q - first) * W,
                           ld_start, 0,   c + (q - first) * W, ldc,    0, nullptr, ahead,
                           ahead_row};
        if (nv == 1) panels_of_rows<F, 1, 1>(p, rows);
        if (nv == 2) panels_of_rows<F, 2, 1>(p, rows);
        if (nv == 3) panels_of_rows<F, 3, 1>(p, rows);
        if (nv == 4) panels_of_rows<F, 4, 1>(p, rows);
    }
}

// Where element (k, j) of the columns' weights lies.
template <class F>
RECURRA_INLINE long packed_at(long k, long j, long K, long vectors) {
    constexpr int W = WIDTH<F>;
    const long q = j / W / 4 * 4, nv = vectors - q < 4 ? vectors - q : 4;
    return q * W * K + k * nv * W + (j - q * W);
}

// C [M][NV vectors] += A' @ B over `n` frames: a [n][M], b: frame i at b + i * ldb. The weight gradients.
template <class F, int M, int NV>
__attribute__((noinline)) void outer_tile(const F* a, const F* b, long ldb, long n, F* c, long ldc, const F* next,
                                          long next_step) {
    constexpr int W = WIDTH<F>;
    Vec<F> acc[M][NV];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) acc[m][v] = load(c + m * ldc + v * W);
    for (long i = 0; i < n; i++, a += M, b += ldb, next += next_step) {
        prefetch(next);
        Vec<F> x[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) x[m] = splat<F>(a[m]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) {
            const Vec<F> y = load(b + v * W);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) acc[m][v] = fma(x[m], y, acc[m][v]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) store(c + m * ldc + v * W, acc[m][v]);
}

// C [columns][NV vectors] += A' @ B. a: blocks of MAX_ROWS columns, each [frames][MAX_ROWS] (the last block narrower),
// `a_frames` the frames that a block holds, of which [from, from + n) are taken.
template <class F, int NV>
void outer(const F* a, long a_frames, long from, long n, long columns, const F* b, long ldb, F* c, long ldc) {
    for (long j = 0; j < columns; j += MAX_ROWS) {
        const long m = columns - j < MAX_ROWS ? columns - j : MAX_ROWS;
        const F* block = a + j * a_frames + from * m;
        F* to = c + j * ldc;
        const F* next = to + m * ldc;  // the sums of the next block, M * NV lines
        const long step = n > 0 && m * NV <= n ? WIDTH<F> : 0;
#define RECURRA_OUTER(M) outer_tile<F, M, NV>(block, b, ldb, n, to, ldc, next, step)
        if (m == 1) RECURRA_OUTER(1);
        if (m == 2) RECURRA_OUTER(2);
        if (m == 3) RECURRA_OUTER(3);
        if constexpr (MAX_ROWS > 3) {
            if (m == 4) RECURRA_OUTER(4);
            if (m == 5) RECURRA_OUTER(5);
            if (m == 6) RECURRA_OUTER(6);
        }
#undef RECURRA_OUTER
    }
}

}  // namespace recurra::RECURRA_ISA
