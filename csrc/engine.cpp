// A layer over time, for one instruction set (RECURRA_ISA). One thread, the caller's memory, no allocation.
#include "engine.hpp"

#include "pointwise.hpp"
#include "product.hpp"
#include "simd.hpp"

namespace recurra::RECURRA_ISA {
namespace {

constexpr long CHUNK_ROWS = 128;  // steps x rows done together: their gates stay in the L2 cache

long round_up(long n, long to) { return (n + to - 1) / to * to; }
long smaller(long a, long b) { return a < b ? a : b; }
template <class F>
void zero(F* p, long n) {
    memset(p, 0, sizeof(F) * n);
}

template <class F>
struct Sizes {
    long units, row, vectors_x, vectors_h, steps, chunk;  // row: numbers of a saved row; chunk: rows x steps at once
    Sizes(const Layer<F>& l, long rows, long all_steps) {
        constexpr long W = WIDTH<F>;
        units = l.panels * W;
        row = units * slots(l.kind);
        vectors_x = round_up(l.inputs, W) / W;
        vectors_h = l.panels;
        steps = rows > 0 ? CHUNK_ROWS / rows : 1;
        steps = smaller(steps < 1 ? 1 : steps, all_steps);
        chunk = steps * rows;
    }
};

// Cuts aligned pieces from the caller's memory.
template <class F>
struct Cutter {
    F* at;
    F* cut(long n) {
        F* p = at;
        at += round_up(n, 16);
        return p;
    }
};

template <class F>
void pack(const Layer<F>& l, const Weights<F>& w) {
    constexpr long W = WIDTH<F>;
    const long G = gates(l.kind), S = slots(l.kind), H = l.hidden, h0 = h_first(l.kind);
    zero(l.wx, l.panels * l.inputs * G * W);
    zero(l.wh, l.panels * H * G * W);
    zero(l.bias, l.panels * S * W);
    for (long g = 0; g < G; g++) {
        const long xs = x_slot(l.kind, int(g)), hs = h_slot(l.kind, int(g));
        for (long unit = 0; unit < H; unit++) {
            const long p = unit / W, lane = unit % W, source = g * H + unit;
            for (long k = 0; k < l.inputs; k++)
                l.wx[(p * l.inputs + k) * G * W + xs * W + lane] = w.ih[source * l.inputs + k];
            for (long k = 0; k < H; k++) l.wh[(p * H + k) * G * W + (hs - h0) * W + lane] = w.hh[source * H + k];
            if (w.bias_ih) l.bias[(p * S + xs) * W + lane] += w.bias_ih[source];
            if (w.bias_hh) l.bias[(p * S + hs) * W + lane] += w.bias_hh[source];
        }
    }
}

template <class F>
void pack_transposed(const Layer<F>& l, const Weights<F>& w) {
    constexpr long W = WIDTH<F>;
    const long G = gates(l.kind), S = slots(l.kind), H = l.hidden, K = l.panels * S * W, vx = round_up(l.inputs, W) / W;
    zero(l.wxt, K * vx * W);
    zero(l.wht, K * l.panels * W);
    for (long g = 0; g < G; g++) {
        const long xs = x_slot(l.kind, int(g)), hs = h_slot(l.kind, int(g));
        for (long unit = 0; unit < H; unit++) {
            const long p = unit / W, lane = unit % W, source = g * H + unit;
            for (long j = 0; j < l.inputs; j++)
                l.wxt[packed_at<F>((p * S + xs) * W + lane, j, K, vx)] = w.ih[source * l.inputs + j];
            for (long j = 0; j < H; j++)
                l.wht[packed_at<F>((p * S + hs) * W + lane, j, K, l.panels)] = w.hh[source * H + j];
        }
    }
}

template <class F>
bool padded(const Forward<F>& f, long row, long step) {
    return f.lengths && step >= f.lengths[row];
}
template <class F>
bool resets(const Forward<F>& f, long row, long step) {
    return f.reset && f.reset[row * f.reset_row + step * f.reset_step];
}

// x of the steps [t0, t1) as [steps * rows][inputs]; padding, whatever it holds, becomes zero.
template <class F>
void gather_inputs(const Layer<F>& l, const Forward<F>& f, long t0, long t1, F* out) {
    for (long t = t0; t < t1; t++)
        for (long r = 0; r < f.rows; r++, out += l.inputs) {
            if (padded(f, r, t))
                zero(out, l.inputs);
            else
                memcpy(out, f.x + r * f.x_row + t * f.x_step, sizeof(F) * l.inputs);
        }
}

// [rows, hidden] -> [rows, units], the padding units zero; and back.
template <class F>
void widen(const F* from, long rows, long hidden, F* to, long units) {
    for (long r = 0; r < rows; r++) {
        if (from)
            memcpy(to + r * units, from + r * hidden, sizeof(F) * hidden);
        else
            zero(to + r * units, hidden);
        zero(to + r * units + hidden, units - hidden);
    }
}
template <class F>
void narrow(const F* from, long units, F* to, long rows, long hidden) {
    for (long r = 0; r < rows; r++) memcpy(to + r * hidden, from + r * units, sizeof(F) * hidden);
}

template <class F>
long forward_work(const Layer<F>& l, long rows, long steps) {
    const Sizes<F> z(l, rows, steps);
    return round_up(z.chunk * l.inputs, 16) + round_up(z.chunk * z.row, 16) + 3 * round_up(rows * z.units, 16);
}

template <class F, Kind K>
void step_rows(const Layer<F>& l, const Forward<F>& f, long t, F* sums, const Sizes<F>& z, const F* h, F* h_next,
               F* c) {
    constexpr long W = WIDTH<F>, G = gates(K), S = slots(K), h0 = h_first(K) * W;
    product<F, G>(
        {h, z.units, 1, l.wh, G * W, l.hidden * G * W, l.hidden, sums + h0, z.row, S * W, sums + h0, z.row, S * W},
        f.rows, l.panels);
    for (long r = 0; r < f.rows; r++) {
        const long at = r * z.units;
        if (padded(f, r, t)) {
            memcpy(h_next + at, h + at, sizeof(F) * z.units);
            zero(f.y + r * f.y_row + t * f.y_step, l.hidden);
            if (f.cs) zero(f.cs + r * f.y_row + t * f.y_step, l.hidden);
            continue;
        }
        for (long p = 0; p < l.panels; p++) {
            Vec<F> cell = K == Kind::lstm ? load(c + at + p * W) : Vec<F>{};
            store(h_next + at + p * W, step_forward<F, K>(sums + r * z.row + p * S * W, load(h + at + p * W), cell));
            if (K == Kind::lstm) store(c + at + p * W, cell);
        }
        memcpy(f.y + r * f.y_row + t * f.y_step, h_next + at, sizeof(F) * l.hidden);
        if (f.cs) memcpy(f.cs + r * f.y_row + t * f.y_step, c + at, sizeof(F) * l.hidden);
    }
}

template <class F, Kind K>
void forward_kind(const Layer<F>& l, const Forward<F>& f) {
    constexpr long W = WIDTH<F>, G = gates(K), S = slots(K);
    const Sizes<F> z(l, f.rows, f.steps);
    Cutter<F> work{f.work};
    F* x = work.cut(z.chunk * l.inputs);
    F* chunk = work.cut(z.chunk * z.row);
    F *h = work.cut(f.rows * z.units), *h_next = work.cut(f.rows * z.units), *c = work.cut(f.rows * z.units);
    widen(f.h0, f.rows, l.hidden, h, z.units);
    widen(K == Kind::lstm ? f.c0 : nullptr, f.rows, l.hidden, c, z.units);
    for (long t0 = 0; t0 < f.steps; t0 += z.steps) {
        const long t1 = smaller(t0 + z.steps, f.steps), n = (t1 - t0) * f.rows;
        F* sums = f.saved ? f.saved + t0 * f.rows * z.row : chunk;
        gather_inputs(l, f, t0, t1, x);
        product<F, G>({x, l.inputs, 1, l.wx, G * W, l.inputs * G * W, l.inputs, l.bias, 0, S * W, sums, z.row, S * W},
                      n, l.panels);
        if (K == Kind::gru)  // the recurrent sum of n starts at its own bias
            for (long r = 0; r < n; r++)
                for (long p = 0; p < l.panels; p++)
                    store(sums + r * z.row + (p * S + 3) * W, load(l.bias + (p * S + 3) * W));
        for (long t = t0; t < t1; t++) {
            for (long r = 0; r < f.rows; r++)
                if (resets(f, r, t) && !padded(f, r, t)) zero(h + r * z.units, z.units), zero(c + r * z.units, z.units);
            step_rows<F, K>(l, f, t, sums + (t - t0) * f.rows * z.row, z, h, h_next, c);
            F* swap = h;
            h = h_next, h_next = swap;
        }
    }
    narrow(h, z.units, f.hn, f.rows, l.hidden);
    if (K == Kind::lstm) narrow(c, z.units, f.cn, f.rows, l.hidden);
}

template <class F>
void forward(const Layer<F>& l, const Forward<F>& f) {
    switch (l.kind) {
        case Kind::rnn_tanh:
            return forward_kind<F, Kind::rnn_tanh>(l, f);
        case Kind::rnn_relu:
            return forward_kind<F, Kind::rnn_relu>(l, f);
        case Kind::lstm:
            return forward_kind<F, Kind::lstm>(l, f);
        case Kind::gru:
            return forward_kind<F, Kind::gru>(l, f);
    }
}

template <class F>
long backward_work(const Layer<F>& l, long rows, long steps) {
    const Sizes<F> z(l, rows, steps);
    const long K = l.inputs + l.hidden;
    return round_up(z.chunk * l.inputs, 16) + round_up(z.chunk * l.hidden, 16) + round_up(z.chunk * z.row, 16) +
           round_up(z.chunk * z.vectors_x * WIDTH<F>, 16) + 2 * round_up(rows * z.units, 16) +
           round_up(z.chunk * slots(l.kind) * WIDTH<F>, 16) + round_up(K * z.row, 16) + round_up(z.row, 16);
}

// A state before step t: zero where it was reset.
template <class F>
const F* before(const Layer<F>& l, const Forward<F>& f, long row, long t, const F* initial, const F* all) {
    if (resets(f, row, t)) return nullptr;
    return t == 0 ? initial + row * l.hidden : all + row * f.y_row + (t - 1) * f.y_step;
}

// ds of step t; carries dh and dc back over it, the part of dh that goes through the weights excepted.
template <class F, Kind K>
void step_rows_back(const Layer<F>& l, const Backward<F>& b, long t, F* ds, const Sizes<F>& z, F* dh, F* dc) {
    constexpr long W = WIDTH<F>, S = slots(K);
    const Forward<F>& f = b.run;
    for (long r = 0; r < f.rows; r++, ds += z.row) {
        if (padded(f, r, t)) {
            zero(ds, z.row);
            continue;
        }
        const long out = r * f.y_row + t * f.y_step;
        const F* h_last = before(l, f, r, t, f.h0, f.y);
        const F* c_last = K == Kind::lstm ? before(l, f, r, t, f.c0, f.cs) : nullptr;
        for (long p = 0; p < l.panels; p++) {
            const long u = p * W, left = l.hidden - u;
            F *dh_at = dh + r * z.units + u, *dc_at = dc + r * z.units + u;
            Vec<F> gh = load(dh_at), gc = load(dc_at);
            if (b.dy) gh += load_first(b.dy + out + u, left);
            if (b.dcs) gc += load_first(b.dcs + out + u, left);
            const Vec<F> none{};
            step_backward<F, K>(f.saved + (t * f.rows + r) * z.row + p * S * W, ds + p * S * W,
                                h_last ? load_first(h_last + u, left) : none,
                                c_last ? load_first(c_last + u, left) : none, load_first(f.y + out + u, left),
                                K == Kind::lstm ? load_first(f.cs + out + u, left) : none, gh, gc);
            store(dh_at, gh), store(dc_at, gc);
        }
    }
}

template <class F, Kind K>
void backward_kind(const Layer<F>& l, const Backward<F>& b) {
    constexpr long W = WIDTH<F>, G = gates(K), S = slots(K);
    const Forward<F>& f = b.run;
    const Sizes<F> z(l, f.rows, f.steps);
    const long I = l.inputs, H = l.hidden, wide = z.vectors_x * W;
    Cutter<F> work{b.work};
    F *x = work.cut(z.chunk * I), *h = work.cut(z.chunk * H), *ds = work.cut(z.chunk * z.row),
      *dx = work.cut(z.chunk * wide);
    F *dh = work.cut(f.rows * z.units), *dc = work.cut(f.rows * z.units), *panel = work.cut(z.chunk * S * W);
    F *dw = work.cut((I + H) * z.row), *dbias = work.cut(z.row);  // dw: [panels][inputs + hidden][slots * width]
    zero(dw, (I + H) * z.row), zero(dbias, z.row);
    widen(b.dhn, f.rows, H, dh, z.units);
    widen(K == Kind::lstm ? b.dcn : nullptr, f.rows, H, dc, z.units);
    for (long t1 = f.steps; t1 > 0; t1 -= z.steps) {
        const long t0 = t1 > z.steps ? t1 - z.steps : 0, n = (t1 - t0) * f.rows;
        gather_inputs(l, f, t0, t1, x);
        for (long t = t1 - 1; t >= t0; t--) {
            F* now = ds + (t - t0) * f.rows * z.row;
            step_rows_back<F, K>(l, b, t, now, z, dh, dc);
            product_columns<F>(now, z.row, z.row, l.wht, z.vectors_h, dh, z.units, dh, z.units, f.rows);
            for (long r = 0; r < f.rows; r++) {
                const bool live = !padded(f, r, t);
                const F* last = live ? before(l, f, r, t, f.h0, f.y) : nullptr;
                F* to = h + ((t - t0) * f.rows + r) * H;
                if (last)
                    memcpy(to, last, sizeof(F) * H);
                else
                    zero(to, H);
                if (live && resets(f, r, t)) zero(dh + r * z.units, z.units), zero(dc + r * z.units, z.units);
            }
        }
        if (b.dx) {
            for (long i = 0; i < n; i++) zero(dx + i * wide, wide);
            product_columns<F>(ds, z.row, z.row, l.wxt, z.vectors_x, dx, wide, dx, wide, n);
            for (long i = 0; i < n; i++)
                memcpy(b.dx + (i % f.rows) * f.x_row + (t0 + i / f.rows) * f.x_step, dx + i * wide, sizeof(F) * I);
        }
        for (long p = 0; p < l.panels;
             p++) {  // dW += x' ds and h' ds: "rows" are the columns of x and h, k runs over the chunk
            for (long i = 0; i < n; i++)
                for (long s = 0; s < S; s++) {
                    const Vec<F> v = load(ds + i * z.row + (p * S + s) * W);
                    store(panel + (i * S + s) * W, v);
                    store(dbias + (p * S + s) * W, load(dbias + (p * S + s) * W) + v);
                }
            F* to = dw + p * (I + H) * S * W;
            panels_of_rows<F, S, 1>({x, 1, I, panel, S * W, 0, n, to, S * W, 0, to, S * W, 0}, I);
            to += I * S * W;
            panels_of_rows<F, S, 1>({h, 1, H, panel, S * W, 0, n, to, S * W, 0, to, S * W, 0}, H);
        }
    }
    narrow(dh, z.units, b.dh0, f.rows, H);
    if (K == Kind::lstm) narrow(dc, z.units, b.dc0, f.rows, H);
    for (long g = 0; g < G; g++)
        for (long unit = 0; unit < H; unit++) {
            const long p = unit / W, to = g * H + unit;
            const long xs = x_slot(K, int(g)) * W + unit % W, hs = h_slot(K, int(g)) * W + unit % W;
            const F* from = dw + p * (I + H) * S * W;
            for (long k = 0; k < I; k++) b.dih[to * I + k] += from[k * S * W + xs];
            for (long k = 0; k < H; k++) b.dhh[to * H + k] += from[(I + k) * S * W + hs];
            b.dbih[to] += dbias[p * S * W + xs];
            b.dbhh[to] += dbias[p * S * W + hs];
        }
}

template <class F>
void backward(const Layer<F>& l, const Backward<F>& b) {
    switch (l.kind) {
        case Kind::rnn_tanh:
            return backward_kind<F, Kind::rnn_tanh>(l, b);
        case Kind::rnn_relu:
            return backward_kind<F, Kind::rnn_relu>(l, b);
        case Kind::lstm:
            return backward_kind<F, Kind::lstm>(l, b);
        case Kind::gru:
            return backward_kind<F, Kind::gru>(l, b);
    }
}

template <class F>
void pack_linear(const F* weight, long outputs, long inputs, F* packed) {
    const long vectors = round_up(outputs, WIDTH<F>) / WIDTH<F>;
    zero(packed, vectors * WIDTH<F> * inputs);
    for (long o = 0; o < outputs; o++)
        for (long k = 0; k < inputs; k++) packed[packed_at<F>(k, o, inputs, vectors)] = weight[o * inputs + k];
}

// bias: padded to whole vectors; work: [CHUNK_ROWS][outputs, padded]
template <class F>
void linear(const F* x, long rows, long inputs, const F* packed, const F* bias, long outputs, F* y, F* work) {
    const long wide = round_up(outputs, WIDTH<F>);
    for (long r0 = 0; r0 < rows; r0 += CHUNK_ROWS) {
        const long n = smaller(CHUNK_ROWS, rows - r0);
        product_columns<F>(x + r0 * inputs, inputs, inputs, packed, wide / WIDTH<F>, bias, 0, work, wide, n);
        for (long r = 0; r < n; r++) memcpy(y + (r0 + r) * outputs, work + r * wide, sizeof(F) * outputs);
    }
}

#define RECURRA_NAME_(x) #x
#define RECURRA_NAME(x) RECURRA_NAME_(x)
template <class F>
constexpr Engine<F> engine{
    RECURRA_NAME(RECURRA_ISA), WIDTH<F>,    pack<F>,        pack_transposed<F>, forward_work<F>, forward<F>,
    backward_work<F>,          backward<F>, pack_linear<F>, linear<F>};

}  // namespace

extern const Engine<float> f32 = engine<float>;
extern const Engine<double> f64 = engine<double>;

}  // namespace recurra::RECURRA_ISA
