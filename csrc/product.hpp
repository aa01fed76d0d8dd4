// The one matrix product: C [rows][NV vectors] = start + A [rows, K] @ W [K][NV vectors], every element summed in the
// order k = 0, 1, ... by one chain of fma. So its bits depend on its own row and column only, however rows and k are
// blocked.
#pragma once
#include "simd.hpp"

namespace recurra::RECURRA_ISA {

constexpr long K_BLOCK = 64;  // 64 x 4 vectors x 64 bytes = 16 KB of weights stay in the L1 cache across row blocks

// A register tile: M rows by NP panels of NV vectors. A's element (m, k) is a[m * lda + k * lka].
template <class F, int M, int NV, int NP>
__attribute__((noinline)) void tile(const F* a, long lda, long lka, const F* w, long ldw, long w_panel, long K,
                                    const F* start, long ld_start, long start_panel, F* c, long ldc, long c_panel) {
    constexpr int W = WIDTH<F>, N = NV * NP;
    Vec<F> acc[M][N];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) acc[m][n] = load(start + m * ld_start + (n / NV) * start_panel + (n % NV) * W);
    for (long k = 0; k < K; k++) {
        Vec<F> x[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) x[m] = splat<F>(a[m * lda + k * lka]);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) {
            const Vec<F> v = load(w + k * ldw + (n / NV) * w_panel + (n % NV) * W);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) acc[m][n] = fma(x[m], v, acc[m][n]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) store(c + m * ldc + (n / NV) * c_panel + (n % NV) * W, acc[m][n]);
}

template <class F>
struct Product {
    const F* a;
    long lda, lka;  // strides of A over rows and over k
    const F* w;
    long ldw, w_panel;
    long K;
    const F* start;  // may be c itself
    long ld_start, start_panel;
    F* c;
    long ldc, c_panel;
};

template <class F, int NV, int NP>
RECURRA_INLINE void tile_of(int m, const Product<F>& p, long row, long k, long kk) {
    const bool first = k == 0;
    const F* start = first ? p.start + row * p.ld_start : p.c + row * p.ldc;
    const long lds = first ? p.ld_start : p.ldc, panel = first ? p.start_panel : p.c_panel;
#define RECURRA_TILE(M)                                                                                                \
    tile<F, M, NV, NP>(p.a + row * p.lda + k * p.lka, p.lda, p.lka, p.w + k * p.ldw, p.ldw, p.w_panel, kk, start, lds, \
                       panel, p.c + row * p.ldc, p.ldc, p.c_panel)
    if constexpr (NV * NP > 4) {  // only for one or two rows: more would not fit the registers
        if (m == 1) return RECURRA_TILE(1);
        return RECURRA_TILE(2);
    } else {
        switch (m) {
            case 1:
                return RECURRA_TILE(1);
            case 2:
                return RECURRA_TILE(2);
            case 3:
                return RECURRA_TILE(3);
        }
        if constexpr (MAX_ROWS > 3) {
            switch (m) {
                case 4:
                    return RECURRA_TILE(4);
                case 5:
                    return RECURRA_TILE(5);
                default:
                    return RECURRA_TILE(6);
            }
        }
    }
#undef RECURRA_TILE
}

template <class F, int NV, int NP>
RECURRA_INLINE void panels_of_rows(const Product<F>& p, long rows) {
    constexpr long most = NV * NP > 4 ? 2 : MAX_ROWS;
    const long blocks = (rows + most - 1) / most, height = blocks ? (rows + blocks - 1) / blocks : 1;
    const long step = blocks > 1 ? K_BLOCK : (p.K > 0 ? p.K : 1);
    long k = 0;
    do {
        const long kk = p.K - k < step ? p.K - k : step;
        for (long row = 0; row < rows; row += height)
            tile_of<F, NV, NP>(int(rows - row < height ? rows - row : height), p, row, k, kk);
        k += step;
    } while (k < p.K);
}

// All `panels` panels of NV vectors. Few rows: several panels at once, so that enough sums are in flight.
template <class F, int NV>
void product(Product<F> p, long rows, long panels) {
    constexpr int SMALL = NV == 1 ? 4 : 2;
    const bool few = NV == 1 || rows <= 2;
    long i = 0;
    auto next = [&](long n) {
        i += n;
        p.w += n * p.w_panel;
        p.start += n * p.start_panel;
        p.c += n * p.c_panel;
    };
    if (few)
        for (; i + SMALL <= panels; next(SMALL)) panels_of_rows<F, NV, SMALL>(p, rows);
    for (; i < panels; next(1)) panels_of_rows<F, NV, 1>(p, rows);
}

// C [rows][vectors] = start + A @ W, W packed by pack_columns: groups of four vectors, the last one smaller.
template <class F>
void product_columns(const F* a, long lda, long K, const F* w, long vectors, const F* start, long ld_start, F* c,
                     long ldc, long rows) {
    constexpr int W = WIDTH<F>;
    for (long q = 0; q < vectors; q += 4) {
        const long nv = vectors - q < 4 ? vectors - q : 4;
        const Product<F> p{a, lda, 1, w + q * W * K, nv * W, 0, K, start + q * W, ld_start, 0, c + q * W, ldc, 0};
        switch (nv) {
            case 1:
                panels_of_rows<F, 1, 1>(p, rows);
                break;
            case 2:
                panels_of_rows<F, 2, 1>(p, rows);
                break;
            case 3:
                panels_of_rows<F, 3, 1>(p, rows);
                break;
            default:
                panels_of_rows<F, 4, 1>(p, rows);
        }
    }
}

// The inverse of that layout: where column j of row k lies.
template <class F>
RECURRA_INLINE long packed_at(long k, long j, long K, long vectors) {
    constexpr int W = WIDTH<F>;
    const long q = j / W / 4 * 4, nv = vectors - q < 4 ? vectors - q : 4;
    return q * W * K + k * nv * W + (j - q * W);
}

}  // namespace recurra::RECURRA_ISA
