// A layer over time. For each step and each panel of units: the sums of the gates of a group of rows, in the L1 cache,
// from x and h; there the equations; out go h, c and, for the backward pass, the gates.
//
//   small weights or many rows   x and h are multiplied in the same visit of the panel
//   large weights and few rows   x is multiplied for many steps at once, h step by step
//
// Every sum is one chain over bias, x, h, so the two ways give the same bits.
#pragma once
#include <algorithm>
#include <cmath>

#include "mask.hpp"
#include "pointwise.hpp"
#include "product.hpp"

namespace recurra::RECURRA_ISA {

constexpr long CHUNK_FRAMES = 192;  // frames of which x is multiplied at once, and whose gradients are summed at once
constexpr long SMALL_WEIGHTS = 3 << 18, FEW_ROWS = 8, MANY_ROWS = 32, PAST_CACHES = 4 << 20;

template <class F>
void zero(F* p, long n) {
    memset(p, 0, sizeof(F) * size_t(n));
}

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

// The numbers that a frame saves: the gates and, with layer norm, the normalised sums of h and of x and four of the
// row: 1 / deviation of the sums of h, mean and 1 / deviation of c', 1 / deviation of the sums of x.
template <class F>
long frame_size(const Layer<F>& l) {
    const long sums = l.panels * WIDTH<F> * slots(l.kind);
    return l.norm ? 3 * sums + 16 : sums;
}

template <class F>
bool together(const Layer<F>& l, long rows) {
    return !l.norm && rows >= FEW_ROWS &&
           (rows >= MANY_ROWS ||
            (l.inputs + l.outputs) * l.panels * WIDTH<F> * gates(l.kind) * long(sizeof(F)) <= SMALL_WEIGHTS);
}

template <class F>
long chunk_steps(const Layer<F>& l, long rows) {
    return together(l, rows) ? 1 : std::max(1L, CHUNK_FRAMES / std::max(rows, 1L));
}

constexpr double NORM_EPS = 1e-5;
// Mean and 1 / deviation of the numbers of a row.
struct Moments {
    double mean, scale;
};

// Work of a team, and of each member besides; Run's constructor cuts it.
template <class F>
long shared_work(const Layer<F>& l, long rows) {
    const long units = round_up(rows * l.panels * WIDTH<F>, 16), wide = round_up(rows * l.columns * WIDTH<F>, 16);
    const long sums = l.panels * WIDTH<F> * slots(l.kind);
    return 2 * rows * round_up(l.inputs, 16) + 4 * wide + 2 * units + round_up(chunk_steps(l, rows) * rows * sums, 16) +
           (l.norm ? round_up(GROUP * sums, 16) : 0);
}
template <class F>
long own_work(const Layer<F>& l, long rows) {
    return round_up(chunk_steps(l, rows) * rows * l.inputs, 16) + 2 * round_up(2 * rows, 16);
}
template <class F>
long forward_work(const Layer<F>& l, long rows, int team) {
    return shared_work(l, rows) + team * own_work(l, rows);
}

template <class F, Kind K>
class Run {
  public:
    static constexpr long W = WIDTH<F>, G = gates(K), S = slots(K), H0 = h_first(K) * W;

    Run(const Layer<F>& layer, const Forward<F>& forward, const Plan& plan, Team team)
        : l(layer),
          f(forward),
          plan(plan),
          team(team),
          units(l.panels * W),
          wide(l.columns * W),
          row(units * S),
          frame(frame_size(l)),
          w_panel((l.inputs + l.outputs) * G * W),
          wh(l.w + l.inputs * G * W),
          fused(together(l, plan.rows)) {
        Cutter<F> shared{f.work}, own{f.work + shared_work(l, plan.rows) + team.id * own_work(l, plan.rows)};
        const bool joint = fused && K != Kind::gru;
        before = joint ? l.inputs : 0;
        ld_in = round_up(before, 16) + wide;
        in = shared.cut(plan.rows * ld_in) + round_up(before, 16), in_next = shared.cut(plan.rows * ld_in);
        in_next += round_up(before, 16);
        h = in, h_next = in_next, ld = ld_in;
        if (f.h_mask) h = shared.cut(plan.rows * wide), h_next = shared.cut(plan.rows * wide), ld = wide;
        c = K == Kind::lstm ? shared.cut(plan.rows * units) : nullptr;
        middle = l.project ? shared.cut(plan.rows * units) : nullptr;
        chunk = fused ? nullptr : shared.cut(chunk_steps(l, plan.rows) * plan.rows * row);
        part = l.norm ? shared.cut(GROUP * row) : nullptr;
        x = own.cut(joint ? 0 : chunk_steps(l, plan.rows) * plan.rows * l.inputs);
        at = reinterpret_cast<int64_t*>(own.cut(2 * plan.rows));
        flags = reinterpret_cast<int64_t*>(own.cut(2 * plan.rows));
        past = f.saved && plan.all_rows * plan.steps * frame * long(sizeof(F)) > PAST_CACHES &&
               reinterpret_cast<uintptr_t>(f.saved) % 64 == 0;
    }

    // The state before step s: the initial one, or what y and the kept cells hold.
    void start(long s) {
        if (team.id == 0)
            for (long i = 0; i < plan.alive(s); i++) {
                const long r = plan.row(i);
                const bool fresh = reset_before(i, s);
                const F* from = fresh ? nullptr : s == 0 ? f.h0 + r * l.outputs : f.y + frame_of(i, s - 1) * l.outputs;
                widen(from, l.outputs, h + i * ld, wide);
                if (f.h_mask) {
                    zero(in + i * ld_in, wide);
                    for (long k = 0; k < l.outputs; k++)
                        in[i * ld_in + k] = h[i * ld + k] * f.h_mask[r * l.outputs + k];
                }
                if (before) memcpy(in + i * ld_in - before, f.x + frame_of(i, s) * before, sizeof(F) * size_t(before));
                if constexpr (K == Kind::lstm) {
                    if (s > 0 && !fresh)
                        memcpy(c + i * units, kept_before(s, i), sizeof(F) * size_t(units));
                    else
                        widen(fresh ? nullptr : f.c0 + r * l.hidden, l.hidden, c + i * units, units);
                }
            }
        if (team.id == 0 && f.hn)
            for (long i = plan.rows - 1; i >= 0 && plan.end(i) == 0; i--) {  // rows without a frame
                const long r = plan.row(i);
                memcpy(f.hn + r * l.outputs, f.h0 + r * l.outputs, sizeof(F) * size_t(l.outputs));
                if (K == Kind::lstm) memcpy(f.cn + r * l.hidden, f.c0 + r * l.hidden, sizeof(F) * size_t(l.hidden));
            }
        team.wait();
    }

    // Steps [from, to). With `gates` and `cells` this is a recomputation for the backward pass: y and the rest are
    // there already, gates and cells go there, from the frames of step `from` on.
    void steps(long from, long to, F* gates = nullptr, F* cells = nullptr) {
        const long step = chunk_steps(l, plan.rows);
        gates_again = gates, cells_again = cells, again_from = plan.frame(from);
        for (long s0 = from; s0 < to; s0 += step) {
            const long s1 = std::min(s0 + step, to);
            if (chunk) project_inputs(s0, s1);
            for (long s = s0; s < s1; s++) {
                one_step(s, chunk ? chunk + (plan.frame(s) - plan.frame(s0)) * row : nullptr);
            }
        }
    }

    // The cells that are kept every so many steps: those before step s > 0.
    const F* kept_before(long s, long i) const {
        return f.kept + ((s / f.every - 1) * plan.all_rows + plan.place(i)) * units;
    }
    bool reset_before(long i, long s) const {
        if (!f.reset) return false;
        const long t = time(i, s);
        if (f.reverse) return t + 1 < plan.end(i) && f.reset[plan.row(i) * f.steps + t + 1];
        return f.reset[plan.row(i) * f.steps + t];
    }
    long time(long i, long s) const { return f.reverse ? plan.end(i) - 1 - s : s; }
    long frame_of(long i, long s) const { return f.frames.at(time(i, s), plan.row(i)); }

    static double total(Vec<F> v) {
        F t[W];
        store(t, v);
#pragma GCC unroll 4
        for (long n = W / 2; n; n /= 2)
            for (long i = 0; i < n; i++) t[i] += t[i + n];
        return double(t[0]);
    }
    template <int N>
    static double total_of(const Vec<F> (&v)[N]) {
        Vec<F> t = v[0];
        for (int i = 1; i < N; i++) t += v[i];
        return total(t);
    }
    // [n] numbers, or zeros, as [wide].
    static void widen(const F* from, long n, F* to, long wide) {
        if (from) memcpy(to, from, sizeof(F) * size_t(n));
        zero(to + (from ? n : 0), from ? wide - n : wide);
    }

    const Layer<F>& l;
    const Forward<F>& f;
    const Plan& plan;
    const Team team;
    const long units, wide, row, frame, w_panel;
    const F* wh;
    const bool fused;
    long before, ld, ld_in;            // inputs that stand before h in a row of `in`; strides of h and of `in`
    F *h, *h_next, *in, *in_next, *c;  // h and c after resets; in: h after dropout too, what the product reads
    F *middle, *chunk, *part, *x;      // o * tanh(c); sums of the input; recurrent sums of a group; the input

  private:
    static constexpr int64_t FRESH = 1, ENDS = 2;
    int64_t *at, *flags;  // of the rows of this step: their frame; whether the next step starts anew, or there is none
    F *gates_again = nullptr, *cells_again = nullptr;
    long again_from = 0;
    bool past;

    // Where the gates of row i go; null where nobody wants them.
    F* gates_to(long s, long i) const {
        if (gates_again) return gates_again + (plan.frame(s) - again_from + i) * frame;
        return f.saved ? f.saved + plan.saved(s, i) * frame : nullptr;
    }

    // The input's sums of the frames of [s0, s1).
    void project_inputs(long s0, long s1) {
        const long n = plan.frame(s1) - plan.frame(s0);
        F* to = x;
        for (long s = s0; s < s1; s++)
            for (long i = 0; i < plan.alive(s); i++, to += l.inputs)
                memcpy(to, f.x + frame_of(i, s) * l.inputs, sizeof(F) * size_t(l.inputs));
        alignas(64) F zeros[4 * W] = {};
        for (long p = team.first(l.panels); p < team.last(l.panels); p++)
            for (long r = 0; r < n; r += GROUP) {
                const long m = std::min(GROUP, n - r);
                F* sums = chunk + r * row + p * S * W;
                panels_of_rows<F, G, 1>(
                    {x + r * l.inputs, l.inputs, l.w + p * w_panel, G * W, 0, l.inputs,
                     l.norm ? zeros : l.bias + p * S * W, 0, 0, sums, row, 0, l.w + (r + m < n ? p : p + 1) * w_panel},
                    m);
                if constexpr (K == Kind::gru)
                    for (long i = 0; i < m; i++) store(sums + i * row + 3 * W, load(l.bias + p * S * W + 3 * W));
            }
        if (l.norm) normalise_inputs(s0, s1);
    }

    // LN(W_ih x) * gain + bias, frame by frame.
    void normalise_inputs(long s0, long s1) {
        F* sums = chunk;
        for (long s = s0; s < s1; s++)
            for (long i = 0; i < plan.alive(s); i++, sums += row) {
                const Moments mm = moments<G>(sums, S * W);
                F* kept = gates_to(s, i);
                if (kept) kept += 2 * row, kept[row + 3] = F(mm.scale);
                for (long p = 0; p < l.panels; p++)
                    for (long g = 0; g < G; g++) {
                        const long k = (p * S + g) * W;
                        const Vec<F> hat = (load(sums + k) - splat<F>(F(mm.mean))) * splat<F>(F(mm.scale));
                        if (kept) store(kept + k, hat);
                        store(sums + k, fma(hat, load(l.gain_x + k), load(l.bias + k)));
                    }
            }
    }

    void one_step(long s, F* sums) {
        const long n = plan.alive(s);
        for (long i = 0; i < n; i++) {
            at[i] = frame_of(i, s);
            const bool ends = s + 1 == plan.end(i);
            flags[i] = ends ? ENDS : reset_before(i, s + 1) ? FRESH : 0;
        }
        const F* xs = nullptr;
        long ldx = l.inputs;
        if (!sums && !before) {
            if (plan.order || f.reverse || f.frames.first) {
                for (long i = 0; i < n; i++)
                    memcpy(x + i * l.inputs, f.x + at[i] * l.inputs, sizeof(F) * size_t(l.inputs));
                xs = x;
            } else {
                xs = f.x + at[0] * l.inputs, ldx = f.frames.row * l.inputs;
            }
        }
        if (l.norm)
            normed_step(s, n, sums);
        else
            panels(s, n, sums, xs, ldx);
        if (l.project) {
            team.wait();
            project(s, n);
        }
        if (before && s + 1 < plan.steps) {
            const long later = plan.alive(s + 1);
            for (long i = team.first(later); i < team.last(later); i++)
                memcpy(in_next + i * ld_in - before, f.x + frame_of(i, s + 1) * before, sizeof(F) * size_t(before));
        }
        team.wait();
        std::swap(h, h_next), std::swap(in, in_next);
    }

    // Without layer norm: panel by panel. One row or two: several panels at once, so that enough sums are in flight.
    void panels(long s, long n, const F* sums, const F* xs, long ldx) {
        constexpr int SEVERAL = G == 1 ? 4 : 2;
        const long first = team.first(l.panels), last = team.last(l.panels);
        const long most = G == 1 || n <= 2 ? SEVERAL : 1, blocks = (last - first + most - 1) / most;
        // To and fro, so that a step begins with the weights that the last one has left in the cache.
        for (long i = 0; i < blocks; i++) {
            const long p = first + (s % 2 ? blocks - 1 - i : i) * most;
            const long soon = std::clamp(s % 2 ? p - most : p + most, first, last - 1);
            if (most > 1 && p + most <= last)
                panel<SEVERAL>(s, n, p, soon, sums, xs, ldx);
            else
                for (long q = p; q < std::min(p + most, last); q++) panel<1>(s, n, q, soon, sums, xs, ldx);
        }
    }

    template <int NP>
    void panel(long s, long n, long p, long soon, const F* sums, const F* xs, long ldx) {
        alignas(64) F scratch[GROUP * 4 * W];  // [row][panel][slot]
        constexpr long ld_s = NP * S * W;
        static_assert(NP * S <= 4 || NP == 2);
        for (long r = 0; r < n; r += GROUP) {
            const long m = std::min(GROUP, n - r);
            const F* start = sums ? sums + r * row + p * S * W : scratch;
            const long ld_start = sums ? row : ld_s;
            const F* w = l.w + p * w_panel;
            const long later = (r + m < n ? p : soon) * w_panel;  // the panel that is multiplied next
            if (!sums)
                panels_of_rows<F, G, NP>({before ? in + r * ld_in - before : xs + r * ldx, before ? ld_in : ldx, w,
                                          G * W, w_panel, before ? l.inputs + l.outputs : l.inputs, l.bias + p * S * W,
                                          0, S * W, scratch, ld_s, S * W, before ? l.w + later : nullptr},
                                         m);
            if constexpr (K == Kind::gru)  // n of the input passes by; hn starts at its own bias
                for (long i = 0; i < m; i++)
                    for (long q = 0; q < NP; q++) {
                        F* to = scratch + i * ld_s + q * S * W;
                        if (sums) store(to, load(start + i * ld_start + q * S * W));
                        if (!sums) store(to + 3 * W, load(l.bias + (p + q) * S * W + 3 * W));
                    }
            if (!before)
                panels_of_rows<F, G, NP>(
                    {in + r * ld_in, ld_in, wh + p * w_panel, G * W, w_panel, l.outputs, start + H0, ld_start, S * W,
                     scratch + H0, ld_s, S * W, (sums ? wh : l.w) + later},
                    m);
            for (int q = 0; q < NP; q++) {
                first_half(s, r, m, p + q, scratch + q * S * W, ld_s);
                second_half(s, r, m, p + q, scratch + q * S * W, ld_s, nullptr);
            }
        }
    }

    // The gates of m rows from their sums, which stand at `a`; they are kept for the backward pass. lstm: leaves c~ at
    // slot 0 and o at slot 3. Else: leaves h~ at slot 0.
    void first_half(long s, long r, long m, long p, F* a, long lda) {
        for (long i = 0; i < m; i++, a += lda) {
            Vec<F> v[4];
#pragma GCC unroll 4
            for (int k = 0; k < S; k++) v[k] = load(a + k * W);
            if constexpr (K == Kind::lstm) {
                const Vec<F> next =
                    lstm_cell<F>(v, load(c + (r + i) * units + p * W), l.peephole ? l.peephole + p * 3 * W : nullptr);
                store(a, next), store(a + 3 * W, v[3]);
            } else if constexpr (K == Kind::gru) {
                store(a, gru_cell<F>(v, load(h + (r + i) * ld + p * W)));
            } else {
                v[0] = K == Kind::rnn_tanh ? tanh<F>(v[0]) : relu<F>(v[0]);
                store(a, v[0]);
            }
            F* to = gates_to(s, r + i);
            if (!to) continue;
            to += p * S * W;
#pragma GCC unroll 4
            for (int k = 0; k < S; k++)
                if (past)
                    store_past(to + k * W, v[k]);
                else
                    store(to + k * W, v[k]);
        }
    }

    // h' and c' of m rows. moments: with layer norm, of the c~ of each row.
    void second_half(long s, long r, long m, long p, F* a, long lda, const Moments* moments) {
        if constexpr (K != Kind::lstm) {
            for (long i = 0; i < m; i++) finish(s, r + i, p, load(a + i * lda), Vec<F>{});
            return;
        } else {
            for (long i = 0; i < m; i += 4) {
                const long some = std::min(4L, m - i);
                Vec<F> next[4], t[4];
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) t[k] = next[k] = load(a + std::min(i + k, m - 1) * lda);
                if (moments)
                    for (int k = 0; k < some; k++) {
                        const Moments& mm = moments[i + k];
                        t[k] = fma((t[k] - splat<F>(F(mm.mean))) * splat<F>(F(mm.scale)), load(l.gain_c + p * W),
                                   load(l.bias_c + p * W));
                    }
                activate<F, true, true, true, true>(t);
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++)
                    if (k < some) finish(s, r + i + k, p, load(a + (i + k) * lda + 3 * W) * t[k], next[k]);
            }
        }
    }

    // h~ and c~ of row i, panel p: zoneout, then out.
    RECURRA_INLINE void finish(long s, long i, long p, Vec<F> value, Vec<F> cell) {
        const long left = l.hidden - p * W;
        if constexpr (K == Kind::lstm) {
            F* now = c + i * units + p * W;
            if (f.zone.c > 0) cell = zoned(f.zone.c, 3, s, i, p, load(now), cell);
            if (gates_again) {
                store(cells_again + (plan.frame(s) - again_from + i) * units + p * W, cell);
            } else {
                if (flags[i] & ENDS) store_first(f.cn + plan.row(i) * l.hidden + p * W, cell, left);
                if (f.cells) store_first(f.cells + at[i] * l.hidden + p * W, cell, left);
                if (f.kept && (!f.every || (s + 1) % f.every == 0)) {
                    const long to =
                        f.every ? ((s + 1) / f.every - 1) * plan.all_rows + plan.place(i) : plan.saved(s, i);
                    store(f.kept + to * units + p * W, cell);
                }
            }
            store(now, flags[i] & FRESH ? Vec<F>{} : cell);
        }
        if (l.project)
            store(middle + i * units + p * W, value);
        else
            out(s, i, p, value);
    }

    RECURRA_INLINE void out(long s, long i, long p, Vec<F> value) {
        const long left = l.outputs - p * W, to = i * ld + p * W, r = plan.row(i);
        if (f.zone.h > 0) value = zoned(f.zone.h, 2, s, i, p, load(h + to), value);
        if (!gates_again) {
            store_first(f.y + at[i] * l.outputs + p * W, value, left);
            if (flags[i] & ENDS) store_first(f.hn + r * l.outputs + p * W, value, left);
        }
        if (flags[i] & FRESH) value = Vec<F>{};
        store(h_next + to, value);
        if (f.h_mask) store(in_next + i * ld_in + p * W, value * load_first(f.h_mask + r * l.outputs + p * W, left));
    }

    Vec<F> zoned(double p, uint32_t kind, long s, long i, long panel, Vec<F> old, Vec<F> next) const {
        const Vec<F> k = zone_share(p, kind, s, i, panel), none{};
        if (f.zone.training) return k > none ? old : next;  // no product: 0 * NaN is NaN
        return fma(k, old, (splat<F>(1) - k) * next);
    }

    void project(long s, long n) {
        for (long q = team.first((l.columns + 3) / 4) * 4; q < std::min(l.columns, team.last((l.columns + 3) / 4) * 4);
             q += 4) {
            alignas(64) F scratch[GROUP * 4 * W], zeros[4 * W] = {};
            const long last = std::min(q + 4, l.columns);
            for (long r = 0; r < n; r += GROUP) {
                const long m = std::min(GROUP, n - r);
                product_columns<F>(middle + r * units, units, l.hidden, l.project, q, last, zeros, 0, scratch, 4 * W, m,
                                   l.columns);
                for (long i = 0; i < m; i++)
                    for (long p = q; p < last; p++) out(s, r + i, p, load(scratch + i * 4 * W + (p - q) * W));
            }
        }
    }

    // LN(W_hh h) * gain besides, over the row; then the halves, with LN(c~) between them.
    void normed_step(long s, long n, F* sums) {
        alignas(64) F zeros[4 * W] = {};
        Moments of_cell[GROUP];
        for (long r = 0; r < n; r += GROUP) {
            const long m = std::min(GROUP, n - r);
            for (long p = 0; p < l.panels; p++)
                panels_of_rows<F, G, 1>({in + r * ld_in, ld_in, wh + p * w_panel, G * W, 0, l.outputs, zeros, 0, 0,
                                         part + p * S * W + H0, row, 0},
                                        m);
            for (long i = 0; i < m; i++) {
                F *to = sums + (r + i) * row, *from = part + i * row;
                const Moments mm = moments<G>(from + H0, S * W);
                F* kept = gates_to(s, r + i);
                if (kept) kept += row, kept[2 * row] = F(mm.scale);
                for (long p = 0; p < l.panels; p++)
                    for (long g = 0; g < G; g++) {
                        const long k = p * S * W + H0 + g * W;
                        const Vec<F> hat = (load(from + k) - splat<F>(F(mm.mean))) * splat<F>(F(mm.scale));
                        if (kept) store(kept + k, hat);
                        store(to + k, fma(hat, load(l.gain + k), load(to + k)));
                    }
            }
            for (long p = 0; p < l.panels; p++) first_half(s, r, m, p, sums + r * row + p * S * W, row);
            if (K == Kind::lstm)
                for (long i = 0; i < m; i++) {
                    of_cell[i] = moments<1>(sums + (r + i) * row, S * W);
                    if (F* kept = gates_to(s, r + i))
                        kept[3 * row + 1] = F(of_cell[i].mean), kept[3 * row + 2] = F(of_cell[i].scale);
                }
            for (long p = 0; p < l.panels; p++)
                second_half(s, r, m, p, sums + r * row + p * S * W, row, K == Kind::lstm ? of_cell : nullptr);
        }
    }

    // Over the N vectors at each panel of a row, the padding units left out.
    template <int N>
    Moments moments(const F* from, long ld) const {
        Vec<F> sum[N] = {}, squares[N] = {};  // side by side, so that the additions overlap
        for (long p = 0; p < l.panels; p++)
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) sum[g] += load(from + p * ld + g * W);  // padding units are 0
        const double count = double(N * l.hidden), mean = total_of(sum) / count;
        const long whole = l.hidden / W;
        for (long p = 0; p < whole; p++)
#pragma GCC unroll 4
            for (int g = 0; g < N; g++) {
                const Vec<F> d = load(from + p * ld + g * W) - splat<F>(F(mean));
                squares[g] = fma(d, d, squares[g]);
            }
        for (int g = 0; whole < l.panels && g < N; g++) {
            alignas(64) F t[W];
            store(t, load(from + whole * ld + g * W) - splat<F>(F(mean)));
            const Vec<F> d = load_first(t, l.hidden - whole * W);
            squares[g] = fma(d, d, squares[g]);
        }
        return {mean, 1 / std::sqrt(total_of(squares) / count + NORM_EPS)};
    }

  public:
    // What of the old value stays in units of `panel`: 0 or 1 in training.
    Vec<F> zone_share(double p, uint32_t kind, long s, long i, long panel) const {
        if (!f.zone.training) return splat<F>(F(p));
        const uint32_t key = mask_key(f.zone.seed, f.zone.stream + kind, uint32_t(time(i, s)), uint32_t(plan.row(i)));
        return hits<F>(key, uint32_t(panel * W), mask_threshold(p));
    }
};

}  // namespace recurra::RECURRA_ISA
