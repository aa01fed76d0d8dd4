// The equations of one step for one panel of units, forward and backward. Letters as in src/recurra/cells/*.py; the
// matrix products are done already: `s` holds the gates' sums and receives their activations.
#pragma once
#include "engine.hpp"
#include "simd.hpp"

namespace recurra::RECURRA_ISA {

// Where the gates lie in a unit's slots. The input product fills gates() slots from `x_first`, the recurrent one from
// `h_first`. gru: n r z hn; so the input fills n r z and the recurrent part r z hn, both without a gap.
constexpr int h_first(Kind kind) { return kind == Kind::gru ? 1 : 0; }
constexpr int x_slot(Kind kind, int gate) { return kind == Kind::gru ? (gate + 1) % 3 : gate; }
constexpr int h_slot(Kind kind, int gate) { return kind == Kind::gru ? gate + 1 : gate; }

template <class F>
RECURRA_INLINE Vec<F> relu(Vec<F> x) {
    const Vec<F> zero{};
    return x < zero ? zero : x;  // NaN stays NaN
}

// h' (and c' in place of c) from the sums s and the last state.
template <class F, Kind K>
RECURRA_INLINE Vec<F> step_forward(F* s, Vec<F> h, Vec<F>& c) {
    constexpr int W = WIDTH<F>;
    const Vec<F> one = splat<F>(1);
    if constexpr (K == Kind::lstm) {
        const Vec<F> i = sigmoid<F>(load(s)), f = sigmoid<F>(load(s + W));
        const Vec<F> g = tanh<F>(load(s + 2 * W)), o = sigmoid<F>(load(s + 3 * W));
        store(s, i), store(s + W, f), store(s + 2 * W, g), store(s + 3 * W, o);
        c = fma(f, c, i * g);
        return o * tanh<F>(c);
    } else if constexpr (K == Kind::gru) {
        const Vec<F> r = sigmoid<F>(load(s + W)), z = sigmoid<F>(load(s + 2 * W));
        const Vec<F> n = tanh<F>(fma(r, load(s + 3 * W), load(s)));
        store(s, n), store(s + W, r), store(s + 2 * W, z);
        return fma(z, h, (one - z) * n);
    } else {
        return K == Kind::rnn_tanh ? tanh<F>(load(s)) : relu<F>(load(s));
    }
}

// Gradients of the sums into ds. dh comes in as the whole gradient of h' and leaves as the part of h's gradient that
// does not pass through the weights; dc as the gradient of c' and leaves as that of c.
template <class F, Kind K>
RECURRA_INLINE void step_backward(const F* s, F* ds, Vec<F> h_last, Vec<F> c_last, Vec<F> h, Vec<F> c, Vec<F>& dh,
                                  Vec<F>& dc) {
    constexpr int W = WIDTH<F>;
    const Vec<F> one = splat<F>(1);
    if constexpr (K == Kind::lstm) {
        const Vec<F> i = load(s), f = load(s + W), g = load(s + 2 * W), o = load(s + 3 * W), t = tanh<F>(c);
        dc += dh * o * (one - t * t);
        store(ds, dc * g * i * (one - i));
        store(ds + W, dc * c_last * f * (one - f));
        store(ds + 2 * W, dc * i * (one - g * g));
        store(ds + 3 * W, dh * t * o * (one - o));
        dc = dc * f;
        dh = Vec<F>{};
    } else if constexpr (K == Kind::gru) {
        const Vec<F> n = load(s), r = load(s + W), z = load(s + 2 * W), hn = load(s + 3 * W);
        const Vec<F> dn = dh * (one - z) * (one - n * n);
        store(ds, dn);
        store(ds + W, dn * hn * r * (one - r));
        store(ds + 2 * W, dh * (h_last - n) * z * (one - z));
        store(ds + 3 * W, dn * r);
        dh = dh * z;
    } else {
        const Vec<F> zero{};
        store(ds, K == Kind::rnn_tanh ? dh * (one - h * h) : (h > zero ? dh : zero));
        dh = zero;
    }
}

}  // namespace recurra::RECURRA_ISA
