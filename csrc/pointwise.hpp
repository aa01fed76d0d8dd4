// The equations of one step for one unit's vector, forward and backward. Letters as in src/recurra/cells/*.py; the
// matrix products are done already.
#pragma once
#include "engine.hpp"
#include "simd.hpp"

namespace recurra::RECURRA_ISA {

// Where the gates lie in a unit's slots. The input product fills gates() slots from 0, the recurrent one from
// `h_first`. gru: n r z hn; so the input fills n r z and the recurrent part r z hn, both without a gap.
constexpr int h_first(Kind kind) { return kind == Kind::gru ? 1 : 0; }
constexpr int x_slot(Kind kind, int gate) { return kind == Kind::gru ? (gate + 1) % 3 : gate; }
constexpr int h_slot(Kind kind, int gate) { return kind == Kind::gru ? gate + 1 : gate; }

template <class F>
RECURRA_INLINE Vec<F> relu(Vec<F> x) {
    const Vec<F> zero{};
    return x < zero ? zero : x;  // NaN stays NaN
}

// lstm, first half: s holds the sums of i f g o and receives the gates; returns c'. peephole: [3 * width] or null.
template <class F>
RECURRA_INLINE Vec<F> lstm_cell(Vec<F> (&s)[4], Vec<F> c, const F* peephole) {
    constexpr int W = WIDTH<F>;
    if (!peephole) {
        activate<F, false, false, true, false>(s);
        return fma(s[1], c, s[0] * s[2]);
    }
    s[0] = fma(load(peephole), c, s[0]), s[1] = fma(load(peephole + W), c, s[1]);
    Vec<F> ifg[3] = {s[0], s[1], s[2]};
    activate<F, false, false, true>(ifg);
    s[0] = ifg[0], s[1] = ifg[1], s[2] = ifg[2];
    const Vec<F> next = fma(s[1], c, s[0] * s[2]);
    s[3] = sigmoid<F>(fma(load(peephole + 2 * W), next, s[3]));
    return next;
}

// gru: s holds the sums of n r z hn and receives n r z (hn stays); returns h'.
template <class F>
RECURRA_INLINE Vec<F> gru_cell(Vec<F> (&s)[4], Vec<F> h) {
    Vec<F> rz[2] = {s[1], s[2]};
    activate<F, false, false>(rz);
    s[1] = rz[0], s[2] = rz[1];
    s[0] = tanh<F>(fma(s[1], s[3], s[0]));
    return fma(s[2], h, (splat<F>(1) - s[2]) * s[0]);
}

// Gradients of the sums into ds, from the gradient dh of h' = o * t and dc of c'; t is tanh of c' (or of its norm), and
// dt, the gradient that comes to c' through it, is in dc already where there is a norm. dc leaves as that of c.
template <class F>
RECURRA_INLINE void lstm_back(const Vec<F> (&gate)[4], Vec<F> (&ds)[4], Vec<F> c, Vec<F> t, Vec<F> dh, Vec<F>& dc,
                              bool through_t, const F* peephole) {
    constexpr int W = WIDTH<F>;
    const Vec<F> one = splat<F>(1), i = gate[0], f = gate[1], g = gate[2], o = gate[3];
    ds[3] = dh * t * o * (one - o);
    if (through_t) dc = fma(dh * o, one - t * t, dc);
    if (peephole) dc = fma(load(peephole + 2 * W), ds[3], dc);
    ds[0] = dc * g * i * (one - i);
    ds[1] = dc * c * f * (one - f);
    ds[2] = dc * i * (one - g * g);
    dc = dc * f;
    if (peephole) dc = fma(load(peephole), ds[0], fma(load(peephole + W), ds[1], dc));
}

// dh leaves as the part of h's gradient that does not pass through the weights.
template <class F>
RECURRA_INLINE void gru_back(const Vec<F> (&s)[4], Vec<F> (&ds)[4], Vec<F> h, Vec<F>& dh) {
    const Vec<F> one = splat<F>(1), n = s[0], r = s[1], z = s[2], hn = s[3];
    ds[0] = dh * (one - z) * (one - n * n);
    ds[1] = ds[0] * hn * r * (one - r);
    ds[2] = dh * (h - n) * z * (one - z);
    ds[3] = ds[0] * r;
    dh = dh * z;
}

}  // namespace recurra::RECURRA_ISA
