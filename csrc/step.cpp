// A step of a layer, for one instruction set (RECURRA_ISA): sums, then the equations of the cell, group by group.
#include "step.hpp"

#include <cmath>

#include "simd.hpp"
#include "sums.hpp"

namespace recurra::RECURRA_ISA {
namespace {

long smaller(long a, long b) { return a < b ? a : b; }

// gru's slots are n r z hn: x fills n r z and h fills r z hn, both without a gap. torch's gates are r z n.
constexpr int x_place(Kind kind, int gate) { return kind == Kind::gru ? (gate + 1) % 3 : gate; }
constexpr int h_first(Kind kind) { return kind == Kind::gru ? 1 : 0; }

int group(Kind kind, long rows) { return (rows <= FEW ? 8 : 4) / slots(kind); }

uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
uint32_t to_bfloat16(float x) {  // to nearest, ties to even; NaN stays NaN
    const uint32_t u = bits_of(x);
    return x == x ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : u >> 16 | 0x40;
}

// One row of a matrix: word after word `stride` apart, what int8 adds at `lane` of all vectors.
void pack_row(const Matrix& m, const float* row, uint32_t* to, long stride, long lane) {
    float most = 0;
    for (long k = 0; k < m.K; k++) most = std::fmax(most, std::fabs(row[k]));
    const float unit = most / 127 > 0 ? most / 127 : 1;
    long sum = 0;
    for (long k = 0; k < m.K; k++) {
        uint32_t& word = to[k / columns(m.format) * stride];
        if (m.format == Format::float32) word = bits_of(row[k]);
        if (m.format == Format::bfloat16) word |= to_bfloat16(row[k]) << (k % 2 * 16);
        if (m.format == Format::int8) {
            const long q = std::lrint(row[k] / unit);
            sum += q;
            word |= uint32_t(uint8_t(q)) << (k % 4 * 8);
        }
    }
    if (m.format == Format::int8) m.offset[lane] = int32_t(-128 * sum), m.scale[lane] = unit / 127;
}

void pack(const StepLayer& l, const Weights<float>& w) {
    const long G = gates(l.kind), S = slots(l.kind), H = l.hidden;
    for (const Matrix* m : {&l.x, &l.h}) {
        memset(m->words, 0, sizeof(uint32_t) * size_t(l.panels * G * W * m->words_per_row));
        if (m->format != Format::int8) continue;
        memset(m->offset, 0, sizeof(int32_t) * size_t(l.panels * G * W));
        memset(m->scale, 0, sizeof(float) * size_t(l.panels * G * W));
    }
    memset(l.bias, 0, sizeof(float) * size_t(l.panels * S * W));
    for (long g = 0; g < G; g++)
        for (long unit = 0; unit < H; unit++) {
            const long source = g * H + unit, panel = unit / W, lane = unit % W, first = panel / l.group * l.group;
            const long n = smaller(l.group, l.panels - first);  // panels of this group
            const long x_at = (x_place(l.kind, int(g)) * n + panel - first) * W + lane;
            const long h_at = (g * n + panel - first) * W + lane, head = first * G * W;
            pack_row(l.x, w.ih + source * l.x.K, l.x.words + head * l.x.words_per_row + x_at, n * G * W, head + x_at);
            pack_row(l.h, w.hh + source * l.h.K, l.h.words + head * l.h.words_per_row + h_at, n * G * W, head + h_at);
            float* bias = l.bias + first * S * W;
            if (w.bias_ih) bias[x_at] += w.bias_ih[source];
            if (w.bias_hh) bias[h_first(l.kind) * n * W + h_at] += w.bias_hh[source];
        }
}

// h' (and c' in place of c) from the sums: the slots of a unit lie `gap` numbers apart. The equations and their order
// of rounding are pointwise.hpp's.
template <Kind K>
RECURRA_INLINE V cell(const float* s, long gap, V h, V& c) {
    const V one = splat<float>(1);
    if constexpr (K == Kind::lstm) {
        const V i = sigmoid<float>(load(s)), f = sigmoid<float>(load(s + gap));
        const V g = tanh<float>(load(s + 2 * gap)), o = sigmoid<float>(load(s + 3 * gap));
        c = fma(f, c, i * g);
        return o * tanh<float>(c);
    } else if constexpr (K == Kind::gru) {
        const V r = sigmoid<float>(load(s + gap)), z = sigmoid<float>(load(s + 2 * gap));
        const V n = tanh<float>(fma(r, load(s + 3 * gap), load(s)));
        return fma(z, h, (one - z) * n);
    } else if constexpr (K == Kind::rnn_tanh) {
        return tanh<float>(load(s));
    } else {
        const V x = load(s), zero{};
        return x < zero ? zero : x;  // NaN stays NaN
    }
}

// The units of n panels of one row, `left` of them there.
template <Kind K>
void cells(const float* sums, long n, float* h, float* c, long left) {
    for (long at = 0; at < n * W; at += W) {
        const long units = left - at;
        V memory = K == Kind::lstm ? load_first(c + at, units) : V{};
        const V last = K == Kind::gru ? load_first(h + at, units) : V{};
        store_first(h + at, cell<K>(sums + at, n * W, last, memory), units);
        if (K == Kind::lstm) store_first(c + at, memory, units);
    }
}

// a [rows, K], |a| <= 1, as round(127 a) + 128
void to_int8(const float* a, long rows, const Matrix& m, uint8_t* q, float* nan) {
    const V one = splat<float>(1), most = splat<float>(127);
    const V magic = splat<float>(0x1.8p23f);  // the low bits of a small number + magic are that number, rounded
    for (long r = 0; r < rows; r++, a += m.K, q += m.words_per_row * 4) {
        V bad{};
        for (long k = 0; k < m.K; k += W) {
            const long n = smaller(W, m.K - k);
            V v = load_first(a + k, n);
            bad = v == v ? bad : v;
            v = v > one ? one : v;
            v = v < -one ? -one : v;
            const Words at = (Words)fma(v, most, magic) - (Words)magic + 128;
            for (long i = 0; i < n; i++) q[k + i] = uint8_t(at[i]);
        }
        nan[r] = 0;
        for (long i = 0; i < W; i++) nan[r] += bad[i];
    }
}

template <Kind K>
void step_kind(const StepLayer& l, const StepRows& s) {
    constexpr long G = gates(K), S = slots(K);
    const long H = l.hidden, groups = (l.panels + l.group - 1) / l.group;
    const long most = l.group * S > 4 ? FEW : TILE_ROWS, blocks = (s.rows + most - 1) / most;
    const long height = (s.rows + blocks - 1) / blocks;
    if (l.x.format == Format::int8) to_int8(s.x, s.rows, l.x, s.xq, s.x_nan);
    if (l.h.format == Format::int8)
        to_int8(s.h, s.rows, l.h, s.hq, s.h_nan);
    else
        memcpy(s.before, s.h, sizeof(float) * size_t(s.rows * H));
    for (long i = 0; i < groups; i++) {
        // Forward in one step and backward in the next, so that weights somewhat larger than a cache still find most
        // of themselves in it.
        const long first = (s.backward ? groups - 1 - i : i) * l.group, n = smaller(l.group, l.panels - first);
        const float* bias = l.bias + first * S * W;
        const long row = n * S * W;
        for (long r = 0; r < s.rows; r += height) {
            const long rows = smaller(height, s.rows - r);
            alignas(64) float sums[(FEW * 8 > TILE_ROWS * 4 ? FEW * 8 : TILE_ROWS * 4) * W];
            for (long j = 0; j < rows; j++)
                for (long v = 0; v < row; v += W) store(sums + j * row + v, load(bias + v));
            const auto& add = ADD[size_t(rows - 1)][size_t(n * G - 1)];
            const long xq = l.x.words_per_row * 4, hq = l.h.words_per_row * 4;
            add[size_t(l.x.format)]({s.x + r * l.x.K, l.x.K, s.xq + r * xq, xq, s.x_nan + r}, l.x, first * G, sums,
                                    row);
            add[size_t(l.h.format)]({s.before + r * H, H, s.hq + r * hq, hq, s.h_nan + r}, l.h, first * G,
                                    sums + h_first(K) * n * W, row);
            for (long j = 0; j < rows; j++) {
                const long at = (r + j) * H + first * W;
                cells<K>(sums + j * row, n, s.h + at, K == Kind::lstm ? s.c + at : nullptr, H - first * W);
            }
        }
    }
}

void step(const StepLayer& l, const StepRows& s) {
    switch (l.kind) {
        case Kind::rnn_tanh:
            return step_kind<Kind::rnn_tanh>(l, s);
        case Kind::rnn_relu:
            return step_kind<Kind::rnn_relu>(l, s);
        case Kind::lstm:
            return step_kind<Kind::lstm>(l, s);
        case Kind::gru:
            return step_kind<Kind::gru>(l, s);
    }
}

}  // namespace

extern const Stepper stepper{int(W), group, pack, step};

}  // namespace recurra::RECURRA_ISA
