// The engine of one instruction set (RECURRA_ISA): weights into their packed form and back, and the choice of the kind.
#include "engine.hpp"

#include "attend.hpp"
#include "backward.hpp"
#include "forward.hpp"

namespace recurra::RECURRA_ISA {
namespace {

// A weight [G * hidden][columns], gate by gate, and its rows in the panels [panel][l.inputs + l.outputs][G * W], from
// row `first` on. move(weight, panels) moves one number; move_block(weight, its stride, panels, their stride) a square
// of W.
template <class F, class Move, class MoveBlock>
void over_panels(const Layer<F>& l, long columns, bool recurrent, Move move, MoveBlock move_block) {
    constexpr long W = WIDTH<F>;
    const long G = gates(l.kind), h0 = h_first(l.kind), rows = l.inputs + l.outputs;
    const long first = recurrent ? l.inputs : 0;
    for (long p = 0; p < l.panels; p++)
        for (long g = 0; g < G; g++) {
            const long slot = recurrent ? h_slot(l.kind, int(g)) - h0 : x_slot(l.kind, int(g));
            const long from = (g * l.hidden + p * W) * columns, to = (p * rows + first) * G * W + slot * W;
            const long lanes = std::min(W, l.hidden - p * W);
            long k = 0;
            if (lanes == W)
                for (; k + W <= columns; k += W) move_block(from + k, columns, to + k * G * W, G * W);
            for (; k < columns; k++)
                for (long lane = 0; lane < lanes; lane++) move(from + lane * columns + k, to + k * G * W + lane);
        }
}
template <class F>
RECURRA_INLINE void load_block(const F* from, long ld, Vec<F> (&v)[WIDTH<F>]) {
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH<F>; i++) v[i] = load(from + i * ld);
    transpose<F>(v);
}
template <class F>
void pack_weight(const Layer<F>& l, const F* weight, long columns, bool recurrent) {
    over_panels(
        l, columns, recurrent, [&](long from, long to) { l.w[to] = weight[from]; },
        [&](long from, long ld, long to, long ldt) {
            Vec<F> v[WIDTH<F>];
            load_block(weight + from, ld, v);
            for (int i = 0; i < WIDTH<F>; i++) store(l.w + to + i * ldt, v[i]);
        });
}
template <class F>
void unpack_weight(const Layer<F>& l, const F* sums, long columns, bool recurrent, F* gradient) {
    over_panels(
        l, columns, recurrent, [&](long to, long from) { gradient[to] += sums[from]; },
        [&](long to, long ldt, long from, long ld) {
            Vec<F> v[WIDTH<F>];
            load_block(sums + from, ld, v);
            for (int i = 0; i < WIDTH<F>; i++) {
                F* at = gradient + to + i * ldt;
                store(at, load(at) + v[i]);
            }
        });
}

// A vector [G * hidden] to or from slots [panel][slots * W].
template <class F, class Visit>
void over_slots(const Layer<F>& l, bool recurrent, Visit visit) {
    constexpr long W = WIDTH<F>;
    const long G = gates(l.kind), S = slots(l.kind);
    for (long g = 0; g < G; g++)
        for (long unit = 0; unit < l.hidden; unit++) {
            const long slot = recurrent ? h_slot(l.kind, int(g)) : x_slot(l.kind, int(g));
            visit(g * l.hidden + unit, (unit / W * S + slot) * W + unit % W);
        }
}

// Peepholes [3 * hidden] to or from [panel][3 * W].
template <class F, class Visit>
void over_peepholes(const Layer<F>& l, Visit visit) {
    constexpr long W = WIDTH<F>;
    for (long g = 0; g < 3; g++)
        for (long unit = 0; unit < l.hidden; unit++) visit(g * l.hidden + unit, (unit / W * 3 + g) * W + unit % W);
}

template <class F>
void pack(const Layer<F>& l, const Weights<F>& w) {
    constexpr long W = WIDTH<F>;
    const long G = gates(l.kind) * W, S = slots(l.kind) * W, units = l.panels * W;
    const long rows = l.inputs + l.outputs;
    if (l.w) {
        if (l.hidden % W) zero(l.w + (l.panels - 1) * rows * G, rows * G);
        pack_weight(l, w.ih, l.inputs, false);
        pack_weight(l, w.hh, l.outputs, true);
    }
    zero(l.bias, l.panels * S);
    if (w.bias_ih) over_slots(l, false, [&](long from, long to) { l.bias[to] += w.bias_ih[from]; });
    if (w.bias_hh) over_slots(l, true, [&](long from, long to) { l.bias[to] += w.bias_hh[from]; });
    if (l.project) {
        zero(l.project, l.hidden * l.columns * W);
        for (long j = 0; j < l.outputs; j++)
            for (long k = 0; k < l.hidden; k++)
                l.project[packed_at<F>(k, j, l.hidden, l.columns)] = w.hr[j * l.hidden + k];
    }
    if (l.peephole) {
        zero(l.peephole, 3 * units);
        over_peepholes(l, [&](long from, long to) { l.peephole[to] = w.peephole[from]; });
    }
    if (l.norm) {
        zero(l.gain_x, l.panels * S), zero(l.gain, l.panels * S), zero(l.gain_c, units), zero(l.bias_c, units);
        over_slots(l, false, [&](long from, long to) { l.gain_x[to] = w.gain_ih[from]; });
        over_slots(l, true, [&](long from, long to) { l.gain[to] = w.gain_hh[from]; });
        if (w.gain_c) memcpy(l.gain_c, w.gain_c, sizeof(F) * size_t(l.hidden));
        if (w.bias_c) memcpy(l.bias_c, w.bias_c, sizeof(F) * size_t(l.hidden));
    }
}

// A weight [G * hidden][columns] as columns over its rows, which lie as ds does (from `skip` on).
template <class F>
void pack_rows(const Layer<F>& l, const F* weight, long columns, bool recurrent, long skip, long rows, F* to) {
    constexpr long W = WIDTH<F>;
    const long vectors = round_up(columns, W) / W, units = l.panels * W;
    zero(to, rows * vectors * W);
    for (long g = 0; g < gates(l.kind); g++)
        for (long unit = 0; unit < l.hidden; unit++) {
            const long slot = recurrent ? h_slot(l.kind, int(g)) : x_slot(l.kind, int(g));
            const long k = ds_at(l.kind, units, W, unit / W, slot) + unit % W - skip;
            const F* from = weight + (g * l.hidden + unit) * columns;
            for (long q = 0; q < vectors; q += 4) {
                const long nv = std::min(4L, vectors - q), n = std::min(nv * W, columns - q * W);
                memcpy(to + q * W * rows + k * nv * W, from + q * W, sizeof(F) * size_t(n));
            }
        }
}

template <class F>
void pack_transposed(const Layer<F>& l, const Weights<F>& w) {
    constexpr long W = WIDTH<F>;
    const long units = l.panels * W, row = units * slots(l.kind), skip = l.kind == Kind::gru ? units : 0;
    if (l.wxt) pack_rows(l, w.ih, l.inputs, false, 0, row, l.wxt);
    pack_rows(l, w.hh, l.outputs, true, skip, row - skip, l.wht);
    if (l.unproject) {
        zero(l.unproject, l.outputs * units);
        for (long k = 0; k < l.outputs; k++)
            for (long j = 0; j < l.hidden; j++)
                l.unproject[packed_at<F>(k, j, l.outputs, l.panels)] = w.hr[k * l.hidden + j];
    }
}

template <class F>
void unpack(const Layer<F>& l, const F* memory, const Gradients<F>& g) {
    const Sums<F> sums(l, const_cast<F*>(memory));
    if (g.ih) unpack_weight(l, sums.w, l.inputs, false, g.ih);
    if (g.hh) unpack_weight(l, sums.w, l.outputs, true, g.hh);
    if (g.bias_ih) over_slots(l, false, [&](long to, long from) { g.bias_ih[to] += sums.bias[from]; });
    if (g.bias_hh) over_slots(l, true, [&](long to, long from) { g.bias_hh[to] += sums.bias[from]; });
    if (g.peephole) over_peepholes(l, [&](long to, long from) { g.peephole[to] += sums.peephole[from]; });
    if (g.gain_ih) over_slots(l, false, [&](long to, long from) { g.gain_ih[to] += sums.gain_x[from]; });
    if (g.gain_hh) over_slots(l, true, [&](long to, long from) { g.gain_hh[to] += sums.gain[from]; });
    for (long j = 0; j < l.hidden; j++) {
        if (g.gain_c) g.gain_c[j] += sums.gain_c[j];
        if (g.bias_c) g.bias_c[j] += sums.bias_c[j];
        for (long k = 0; g.hr && k < l.outputs; k++)
            g.hr[k * l.hidden + j] += sums.project[j * l.columns * WIDTH<F> + k];
    }
}

template <class F, Kind K>
void forward_kind(const Layer<F>& l, const Forward<F>& f, const Plan& plan, Team team) {
    Run<F, K> run(l, f, plan, team);
    run.start(0);
    run.steps(0, plan.steps);
}

template <class F>
void forward(const Layer<F>& l, const Forward<F>& f, const Plan& plan, Team team) {
    switch (l.kind) {
        case Kind::rnn_tanh:
            return forward_kind<F, Kind::rnn_tanh>(l, f, plan, team);
        case Kind::rnn_relu:
            return forward_kind<F, Kind::rnn_relu>(l, f, plan, team);
        case Kind::lstm:
            return forward_kind<F, Kind::lstm>(l, f, plan, team);
        case Kind::gru:
            return forward_kind<F, Kind::gru>(l, f, plan, team);
    }
}

template <class F>
void backward(const Layer<F>& l, const Backward<F>& b, const Plan& plan, Team team) {
    switch (l.kind) {
        case Kind::rnn_tanh:
            return Back<F, Kind::rnn_tanh>(l, b, plan, team).all();
        case Kind::rnn_relu:
            return Back<F, Kind::rnn_relu>(l, b, plan, team).all();
        case Kind::lstm:
            return Back<F, Kind::lstm>(l, b, plan, team).all();
        case Kind::gru:
            return Back<F, Kind::gru>(l, b, plan, team).all();
    }
}

template <class F>
void mask(const F* x, F* y, long steps, long rows, long units, double p, uint64_t seed, uint32_t stream) {
    const uint32_t threshold = mask_threshold(p);
    const Vec<F> none{}, scale = splat<F>(p < 1 ? F(1 / (1 - p)) : F(0));
    for (long t = 0; t < steps; t++)
        for (long r = 0; r < rows; r++, x += units, y += units) {
            const uint32_t key = mask_key(seed, stream, uint32_t(t), uint32_t(r));
            for (long u = 0; u < units; u += WIDTH<F>) {
                const Vec<F> dropped = hits<F>(key, uint32_t(u), threshold);
                const Vec<F> v = load_first(x + u, units - u) * scale;
                store_first(y + u, dropped > none ? none : v, units - u);
            }
        }
}

template <class F>
void pack_linear(const F* weight, long outputs, long inputs, F* packed) {
    const long vectors = round_up(outputs, WIDTH<F>) / WIDTH<F>;
    zero(packed, vectors * WIDTH<F> * inputs);
    for (long o = 0; o < outputs; o++)
        for (long k = 0; k < inputs; k++) packed[packed_at<F>(k, o, inputs, vectors)] = weight[o * inputs + k];
}

// bias: padded to whole vectors; work: [LINEAR_ROWS][outputs, padded]
constexpr long LINEAR_ROWS = 128;
template <class F>
void linear(const F* x, long rows, long inputs, const F* packed, const F* bias, long outputs, F* y, F* work) {
    const long wide = round_up(outputs, WIDTH<F>), vectors = wide / WIDTH<F>;
    for (long r0 = 0; r0 < rows; r0 += LINEAR_ROWS) {
        const long n = std::min(LINEAR_ROWS, rows - r0);
        product_columns<F>(x + r0 * inputs, inputs, inputs, packed, 0, vectors, bias, 0, work, wide, n, vectors);
        for (long r = 0; r < n; r++) memcpy(y + (r0 + r) * outputs, work + r * wide, sizeof(F) * size_t(outputs));
    }
}

#define RECURRA_NAME_(x) #x
#define RECURRA_NAME(x) RECURRA_NAME_(x)
template <class F>
constexpr Engine<F> engine{RECURRA_NAME(RECURRA_ISA),
                           WIDTH<F>,
                           pack<F>,
                           pack_transposed<F>,
                           frame_size<F>,
                           forward_work<F>,
                           forward<F>,
                           backward_work<F>,
                           backward<F>,
                           sums_size<F>,
                           unpack<F>,
                           mask<F>,
                           pack_linear<F>,
                           linear<F>,
                           attend<F>,
                           log_softmax<F>};

}  // namespace

extern const Engine<float> f32 = engine<float>;
extern const Engine<double> f64 = engine<double>;

}  // namespace recurra::RECURRA_ISA
