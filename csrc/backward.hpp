// Backward through time. Step by step from the last one: dh = dy + what the next step's sums give back through W_hh,
// then the derivatives of the equations; the gradients `ds` of the sums of a chunk of frames stay in the cache until
// the weights' gradients and dx have been made of them.
#pragma once
#include "forward.hpp"

namespace recurra::RECURRA_ISA {

constexpr long FRAMES_AT_ONCE =
    192;  // of a panel's ds, which are read again and again while weight gradients are summed

// Where a slot lies in a row of ds. gru: all n first, so that what the recurrent product sees (r z hn) has no gap.
inline long ds_at(Kind kind, long units, long width, long panel, long slot) {
    if (kind != Kind::gru) return (panel * slots(kind) + slot) * width;
    return slot == 0 ? panel * width : units + (panel * 3 + slot - 1) * width;
}

// The sums over frames, packed as the weights are; see unpack.
template <class F>
struct Sums {
    F *w, *bias, *peephole, *gain_x, *gain, *gain_c, *bias_c, *project;
    Sums(const Layer<F>& l, F* memory) {
        const long W = WIDTH<F>, G = gates(l.kind) * W, units = l.panels * W;
        Cutter<F> cutter{memory};
        w = cutter.cut(l.panels * (l.inputs + l.outputs) * G);
        bias = cutter.cut(units * slots(l.kind)), peephole = cutter.cut(3 * units);
        gain_x = cutter.cut(l.norm ? units * slots(l.kind) : 0), gain = cutter.cut(l.norm ? units * slots(l.kind) : 0);
        gain_c = cutter.cut(units), bias_c = cutter.cut(units);
        project = cutter.cut(l.project ? l.hidden * l.columns * W : 0);
        size = cutter.at - memory;
    }
    long size;
};
template <class F>
long sums_size(const Layer<F>& l) {
    return Sums<F>(l, reinterpret_cast<F*>(64)).size;  // only counts
}

template <class F>
long back_steps(long rows) {
    return std::max(1L, CHUNK_FRAMES / std::max(rows, 1L));
}

template <class F>
long backward_work(const Layer<F>& l, long rows, long every, int team) {
    const long W = WIDTH<F>, units = l.panels * W, wide = l.columns * W, row = units * slots(l.kind);
    const long frames = back_steps<F>(rows) * rows, again = every * rows;
    long n = (frames + 2 * rows) * row + frames * (l.norm ? 2 * row : 0) + frames * (l.inputs + l.outputs);
    n += rows * (2 * wide + units) + again * (frame_size(l) + units) + (l.project ? frames * (units + wide) : 0);
    n += team * (FRAMES_AT_ONCE * 4 * W + 3 * units) + 1024;
    return n + (every ? forward_work(l, rows, team) : 0);
}

template <class F, Kind K>
class Back {
  public:
    static constexpr long W = WIDTH<F>, G = gates(K), S = slots(K), H0 = h_first(K) * W;

    Back(const Layer<F>& layer, const Backward<F>& backward, const Plan& plan, Team team)
        : l(layer),
          b(backward),
          f(b.run),
          plan(plan),
          team(team),
          run(layer, b.run, plan, team),
          sums(layer, b.sums),
          units(run.units),
          wide(run.wide),
          row(run.row) {
        const long rows = plan.rows, frames = back_steps<F>(rows) * rows;
        Cutter<F> work{f.work + (f.every ? forward_work(l, rows, team.size) : 0)};
        ds = work.cut(frames * row), ds_last = work.cut(rows * row);
        dz = l.norm ? work.cut(frames * row) : ds, dz_last = l.norm ? work.cut(rows * row) : ds_last;
        dzx = l.norm ? work.cut(frames * row) : ds;
        xs = work.cut(frames * l.inputs), hs = work.cut(frames * l.outputs);
        dh = work.cut(rows * wide), dr = work.cut(rows * wide), dc = work.cut(rows * units);
        if (f.every) gates_again = work.cut(f.every * rows * run.frame), cells_again = work.cut(f.every * rows * units);
        if (l.project) middles = work.cut(frames * units), drs = work.cut(frames * wide);
        for (int i = 0; i <= team.id; i++) panel = work.cut(FRAMES_AT_ONCE * 4 * W), line = work.cut(3 * units);
    }

    void all() {
        if (team.id == 0)
            for (long i = 0; i < plan.rows; i++) {
                const long r = plan.row(i);
                R::widen(b.dhn ? b.dhn + r * l.outputs : nullptr, l.outputs, dh + i * wide, wide);
                if (K == Kind::lstm) R::widen(b.dcn ? b.dcn + r * l.hidden : nullptr, l.hidden, dc + i * units, units);
            }
        team.wait();
        const long segment = f.every ? f.every : plan.steps;
        for (long s1 = plan.steps; s1 > 0;) {
            const long s0 = (s1 - 1) / segment * segment;
            begin = s0;
            if (f.every) {
                run.start(s0);
                run.steps(s0, s1, gates_again, cells_again);
            }
            const long step = back_steps<F>(plan.rows);
            for (long t1 = s1; t1 > s0; t1 -= step) chunk(std::max(s0, t1 - step), t1);
            s1 = s0;
        }
        first_state();
    }

  private:
    using R = Run<F, K>;
    const Layer<F>& l;
    const Backward<F>& b;
    const Forward<F>& f;
    const Plan& plan;
    const Team team;
    R run;
    Sums<F> sums;
    const long units, wide, row;
    F *ds, *ds_last;  // gradients of the sums: [frame of the chunk][row]; of the step after the chunk
    F *dz, *dz_last;  // gradients of the recurrent product: the same, but behind a layer norm
    F* dzx;           // likewise of the input's product
    F *xs, *hs;       // x and h before the step, in blocks of columns (see outer)
    F *dh, *dc, *dr;  // what later steps give to h and c past the product; the gradient of h
    F *gates_again = nullptr, *cells_again = nullptr, *middles = nullptr, *drs = nullptr, *panel, *line;
    long begin = 0;  // the first step whose gates are there

    const F* gates_of(long s, long i) const {
        return f.every ? gates_again + (plan.frame(s) - plan.frame(begin) + i) * run.frame
                       : f.saved + plan.saved(s, i) * run.frame;
    }
    // The cell before step s; null for zero.
    Vec<F> cell_before(long s, long i, long p) const {
        if (run.reset_before(i, s)) return Vec<F>{};
        if (s == 0) return load_first(f.c0 + plan.row(i) * l.hidden + p * W, l.hidden - p * W);
        const F* from;
        if (!f.every)
            from = f.kept + plan.saved(s - 1, i) * units;
        else if (s > begin)
            from = cells_again + (plan.frame(s - 1) - plan.frame(begin) + i) * units;
        else
            from = run.kept_before(s, i);
        return load(from + p * W);
    }
    const F* h_before(long s, long i) const {
        if (run.reset_before(i, s)) return nullptr;
        return s == 0 ? f.h0 + plan.row(i) * l.outputs : f.y + run.frame_of(i, s - 1) * l.outputs;
    }

    void chunk(long s0, long s1) {
        const long base = plan.frame(s0), n = plan.frame(s1) - base;
        for (long s = s1 - 1; s >= s0; s--) {
            const F* next = s + 1 == s1 ? dz_last : dz + (plan.frame(s + 1) - base) * row;
            step(s, next, ds + (plan.frame(s) - base) * row, dz + (plan.frame(s) - base) * row, plan.frame(s) - base);
            team.wait();
        }
        pack_frames(s0, s1, n);
        if (l.norm)
            for (long s = s0; s < s1; s++)
                for (long i = 0; i < plan.alive(s); i++) {
                    const long at = (plan.frame(s) - base + i) * row;
                    const F* gate = gates_of(s, i);
                    back_through_norm(gate + 2 * row, gate[3 * row + 3], 0, l.gain_x, sums.gain_x, ds + at, dzx + at);
                    if (K == Kind::gru)  // hn is none of the input's
                        for (long p = 0; p < l.panels; p++) store(dzx + at + ds_at(K, units, W, p, 3), Vec<F>{});
                }
        team.wait();
        weight_gradients(n);
        if (b.dx) input_gradients(s0, s1);
        const long keep = plan.alive(s0) * row;
        memcpy(dz_last + team.first(keep), dz + team.first(keep),
               sizeof(F) * size_t(team.last(keep) - team.first(keep)));
        team.wait();
    }

    // ds of step s from `next`, the recurrent gradients of step s + 1.
    void step(long s, const F* next, F* ds_now, F* dz_now, long frame) {
        const long n = plan.alive(s), later = s + 1 < plan.steps ? plan.alive(s + 1) : 0;
        const long groups = (l.columns + 3) / 4, K_h = K == Kind::gru ? 3 * units : row;
        alignas(64) F scratch[GROUP * 4 * W], zeros[4 * W] = {};
        const long mine = team.last(groups) - team.first(groups);
        for (long i = 0; i < mine; i++) {
            const long q = (team.first(groups) + (s % 2 ? mine - 1 - i : i)) * 4, last = std::min(q + 4, l.columns);
            const int np = int(last - q);
            for (long r = 0; r < n; r += GROUP) {
                const long m = std::min(GROUP, n - r), old = std::max(0L, std::min(m, later - r));
                product_columns<F>(next + r * row + (K == Kind::gru ? units : 0), row, K_h, l.wht, q, last, zeros, 0,
                                   scratch, 4 * W, old, l.columns, i == 0 && !f.every ? gates_of(s, r) : nullptr,
                                   run.frame);
                for (long j = r; j < r + m; j++) {
                    Vec<F> g[4];
                    h_gradient(s, j, q, np, j < later ? scratch + (j - r) * 4 * W : nullptr, g);
                    if (l.project || l.norm)
                        for (int k = 0; k < np; k++) store(dr + j * wide + (q + k) * W, g[k]);
                    else
                        equations(s, j, q, np, g, ds_now + j * row);
                }
            }
        }
        if (l.project)
            back_through_projection(s, n, ds_now, frame);
        else if (l.norm)
            for (long i = 0; i < n; i++) normed_row(s, i, dr + i * wide, ds_now + i * row);
        if (l.norm)
            for (long i = 0; i < n; i++)
                back_through_norm(gates_of(s, i) + row, gates_of(s, i)[3 * row], h_first(K), l.gain, sums.gain,
                                  ds_now + i * row, dz_now + i * row);
    }

    // The gradient of h~ at columns [q, q + np) of row i; `product`: what comes through W_hh, or null.
    RECURRA_INLINE void h_gradient(long s, long i, long q, int np, const F* product, Vec<F> (&g)[4]) {
        const bool cut = product && run.reset_before(i, s + 1);
        const long r = plan.row(i), at = b.dy ? run.frame_of(i, s) * l.outputs : 0;
        for (int k = 0; k < np; k++) {
            const long p = q + k, left = l.outputs - p * W;
            F* carry = dh + i * wide + p * W;
            Vec<F> v{};
            if (!cut) {
                v = load(carry);
                if (product) {
                    Vec<F> through = load(product + k * W);
                    if (f.h_mask) through = through * load_first(f.h_mask + r * l.outputs + p * W, left);
                    v += through;
                }
            }
            if (b.dy) v += load_first(b.dy + at + p * W, left);
            g[k] = v;
            if (f.zone.h > 0) {
                const Vec<F> share = run.zone_share(f.zone.h, 2, s, i, p);
                store(carry, v * share);
                g[k] = v * (splat<F>(1) - share);
            } else if (K != Kind::gru) {
                store(carry, Vec<F>{});
            }
        }
    }

    // Gradients of the sums at panels [q, q + np) of row i from g, the gradient of h~ before the projection.
    RECURRA_INLINE void equations(long s, long i, long q, int np, const Vec<F> (&g)[4], F* to) {
        const F* gate = gates_of(s, i);
        if constexpr (K == Kind::lstm) {
            Vec<F> t[4], before[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const long p = q + std::min(k, np - 1);
                before[k] = cell_before(s, i, p);
                const F* v = gate + p * S * W;
                t[k] = fma(load(v + W), before[k], load(v) * load(v + 2 * W));
            }
            Vec<F> cell[4] = {t[0], t[1], t[2], t[3]};
            activate<F, true, true, true, true>(t);
            for (int k = 0; k < np; k++)
                lstm(s, i, q + k, gate + (q + k) * S * W, before[k], cell[k], t[k], g[k], Vec<F>{}, true, to);
        } else {
            for (int k = 0; k < np; k++) {
                const long p = q + k;
                const F* v = gate + p * S * W;
                if constexpr (K == Kind::gru) {
                    const F* from = h_before(s, i);
                    const Vec<F> h = from ? load_first(from + p * W, l.outputs - p * W) : Vec<F>{};
                    const Vec<F> z[4] = {load(v), load(v + W), load(v + 2 * W), load(v + 3 * W)};
                    Vec<F> d[4], past = g[k];
                    gru_back<F>(z, d, h, past);
                    F* carry = dh + i * wide + p * W;
                    store(carry, f.zone.h > 0 ? load(carry) + past : past);
#pragma GCC unroll 4
                    for (int slot = 0; slot < 4; slot++) store(to + ds_at(K, units, W, p, slot), d[slot]);
                } else {
                    const Vec<F> h = load(v), none{};
                    store(to + p * W, K == Kind::rnn_tanh ? g[k] * (splat<F>(1) - h * h) : (h > none ? g[k] : none));
                }
            }
        }
    }

    // more: what c~ receives besides; through_t: whether o * tanh(c~) stands, else `t` has given its part in `more`.
    RECURRA_INLINE void lstm(long s, long i, long p, const F* v, Vec<F> before, Vec<F> cell, Vec<F> t, Vec<F> g,
                             Vec<F> more, bool through_t, F* to) {
        const Vec<F> gate[4] = {load(v), load(v + W), load(v + 2 * W), load(v + 3 * W)};
        F* carry = dc + i * units + p * W;
        const bool cut = s + 1 < plan.end(i) && run.reset_before(i, s + 1);
        Vec<F> d[4], dcell = cut ? Vec<F>{} : load(carry), kept{};
        if (b.dcells) dcell += load_first(b.dcells + run.frame_of(i, s) * l.hidden + p * W, l.hidden - p * W);
        if (f.zone.c > 0) {
            const Vec<F> share = run.zone_share(f.zone.c, 3, s, i, p);
            kept = dcell * share, dcell = dcell * (splat<F>(1) - share);
        }
        dcell += more;
        lstm_back<F>(gate, d, before, t, g, dcell, through_t, l.peephole ? l.peephole + p * 3 * W : nullptr);
        store(carry, dcell + kept);
#pragma GCC unroll 4
        for (int slot = 0; slot < 4; slot++) store(to + (p * 4 + slot) * W, d[slot]);
        if (l.peephole) {
            F* sum = sums.peephole + p * 3 * W;
            store(sum, fma(d[0], before, load(sum)));
            store(sum + W, fma(d[1], before, load(sum + W)));
            store(sum + 2 * W, fma(d[3], cell, load(sum + 2 * W)));
        }
    }

    void back_through_projection(long s, long n, F* ds_now, long frame) {
        alignas(64) F scratch[GROUP * 4 * W], zeros[4 * W] = {};
        memcpy(drs + frame * wide, dr, sizeof(F) * size_t(n * wide));
        for (long r = 0; r < n; r += GROUP) {
            const long m = std::min(GROUP, n - r);
            F* dm = l.norm ? middles + frame * units + r * units : nullptr;  // room for the rows until o * t is known
            for (long q = 0; q < l.panels; q += 4) {
                const long last = std::min(q + 4, l.panels);
                product_columns<F>(dr + r * wide, wide, l.outputs, l.unproject, q, last, zeros, 0, scratch, 4 * W, m,
                                   l.panels);
                for (long i = 0; i < m; i++) {
                    Vec<F> g[4];
                    for (int k = 0; k < last - q; k++) {
                        g[k] = load(scratch + i * 4 * W + k * W);
                        if (dm) store(dm + i * units + (q + k) * W, g[k]);
                    }
                    if (dm) continue;
                    equations(s, r + i, q, int(last - q), g, ds_now + (r + i) * row);
                    for (long p = q; p < last; p++) {  // o * tanh(c~), for the projection's gradient
                        const F* v = gates_of(s, r + i) + p * S * W;
                        const Vec<F> cell = fma(load(v + W), cell_before(s, r + i, p), load(v) * load(v + 2 * W));
                        store(middles + (frame + r + i) * units + p * W, load(v + 3 * W) * tanh<F>(cell));
                    }
                }
            }
            for (long i = 0; dm && i < m; i++) {
                normed_row(s, r + i, dm + i * units, ds_now + (r + i) * row);
                for (long p = 0; p < l.panels; p++)
                    store(dm + i * units + p * W,
                          load(gates_of(s, r + i) + p * S * W + 3 * W) * load(line + units + p * W));
            }
        }
    }

    // Layer norm of the cell: a row at a time. g [units]: the gradient of h~ before the projection. Leaves tanh in
    // `line`.
    void normed_row(long s, long i, const F* g, F* to) {
        if constexpr (K != Kind::lstm) {
            for (long q = 0; q < l.panels; q += 4) {
                const int np = int(std::min(4L, l.panels - q));
                Vec<F> v[4];
                for (int k = 0; k < np; k++) v[k] = load(g + (q + k) * W);
                equations(s, i, q, np, v, to);
            }
        } else {
            const F* gate = gates_of(s, i);
            const F* moments = gate + 3 * row;
            const Vec<F> mean = splat<F>(moments[1]), scale = splat<F>(moments[2]);
            F *dus = line, *ts = line + units, *us = line + 2 * units;
            Vec<F> one = splat<F>(1), sum{}, sum_u{};
            for (long p = 0; p < l.panels; p++) {
                const F* v = gate + p * S * W;
                const Vec<F> cell = fma(load(v + W), cell_before(s, i, p), load(v) * load(v + 2 * W));
                const Vec<F> u = (cell - mean) * scale, gain = load(l.gain_c + p * W);
                const Vec<F> t = tanh<F>(fma(u, gain, load(l.bias_c + p * W)));
                const Vec<F> dv = load(g + p * W) * load(v + 3 * W) * (one - t * t), du = dv * gain;
                store(sums.gain_c + p * W, fma(dv, u, load(sums.gain_c + p * W)));
                store(sums.bias_c + p * W, load(sums.bias_c + p * W) + dv);
                store(dus + p * W, du), store(ts + p * W, t), store(us + p * W, u);
                sum += du, sum_u = fma(du, u, sum_u);
            }
            const Vec<F> m = splat<F>(F(R::total(sum) / double(l.hidden)));
            const Vec<F> m_u = splat<F>(F(R::total(sum_u) / double(l.hidden)));
            for (long p = 0; p < l.panels; p++) {
                const F* v = gate + p * S * W;
                const Vec<F> before = cell_before(s, i, p);
                const Vec<F> cell = fma(load(v + W), before, load(v) * load(v + 2 * W));
                const Vec<F> more = scale * (load(dus + p * W) - m - load(us + p * W) * m_u);
                lstm(s, i, p, v, before, cell, load(ts + p * W), load(g + p * W), more, false, to);
            }
        }
    }

    // From the gradients of LN(z) * gain, in the slots [first, first + G) of a frame, to those of z. hat: the
    // normalised z.
    void back_through_norm(const F* hat, F scale, long first, const F* gain, F* d_gain, const F* from, F* to) {
        Vec<F> sum[G] = {}, sum_hat[G] = {};
        for (long p = 0; p < l.panels; p++)
#pragma GCC unroll 4
            for (long g = 0; g < G; g++) {
                const long k = (p * S + first + g) * W;
                const Vec<F> d = load(from + ds_at(K, units, W, p, first + g)), hats = load(hat + k);
                store(d_gain + k, fma(d, hats, load(d_gain + k)));
                const Vec<F> dhat = d * load(gain + k);
                sum[g] += dhat, sum_hat[g] = fma(dhat, hats, sum_hat[g]);
            }
        const double count = double(G * l.hidden);
        const Vec<F> m = splat<F>(F(R::total_of(sum) / count)), m_hat = splat<F>(F(R::total_of(sum_hat) / count));
        for (long p = 0; p < l.panels; p++)
            for (long slot = first; slot < first + G; slot++) {
                const long k = (p * S + slot) * W, at = ds_at(K, units, W, p, slot);
                store(to + at, splat<F>(scale) * (load(from + at) * load(gain + k) - m - load(hat + k) * m_hat));
            }
    }

    // Slots [first, last) of panel p of m frames, side by side.
    void copy_panel(const F* all, long p, long from, long m, long first, long last) {
        for (long i = 0; i < m; i++)
            for (long k = first; k < last; k++)
                store(panel + (i * S + k) * W, load(all + (from + i) * row + ds_at(K, units, W, p, k)));
    }

    // x and h before each frame of the chunk, column block by column block.
    void pack_frames(long s0, long s1, long n) {
        long frame = 0;
        for (long s = s0; s < s1; s++)
            for (long i = 0; i < plan.alive(s); i++, frame++) {
                if (frame < team.first(n) || frame >= team.last(n)) continue;
                pack_frame(f.x + run.frame_of(i, s) * l.inputs, l.inputs, nullptr, xs, frame, n);
                const F* mask = f.h_mask ? f.h_mask + plan.row(i) * l.outputs : nullptr;
                pack_frame(h_before(s, i), l.outputs, mask, hs, frame, n);
            }
    }
    static void pack_frame(const F* from, long columns, const F* mask, F* to, long frame, long n) {
        for (long j = 0; j < columns; j += MAX_ROWS) {
            const long m = std::min<long>(MAX_ROWS, columns - j);
            F* at = to + j * n + frame * m;
            if (from && !mask && m == MAX_ROWS)
                memcpy(at, from + j, sizeof(F) * MAX_ROWS);
            else
                for (long k = 0; k < m; k++) at[k] = !from ? F(0) : mask ? from[j + k] * mask[j + k] : from[j + k];
        }
    }

    void weight_gradients(long n) {
        for (long p = team.first(l.panels); p < team.last(l.panels); p++)
            for (long from = 0; from < n; from += FRAMES_AT_ONCE) {
                const long m = std::min(FRAMES_AT_ONCE, n - from);
                Vec<F> bias[S];
                for (int k = 0; k < S; k++) bias[k] = load(sums.bias + (p * S + k) * W);
                for (long i = 0; i < m; i++)
#pragma GCC unroll 4
                    for (int k = 0; k < S; k++) {
                        const Vec<F> v = load(ds + (from + i) * row + ds_at(K, units, W, p, k));
                        bias[k] += v;
                        store(panel + (i * S + k) * W, v);
                    }
                for (int k = 0; k < S; k++) store(sums.bias + (p * S + k) * W, bias[k]);
                F* to = sums.w + p * (l.inputs + l.outputs) * G * W;
                if (l.norm) copy_panel(dzx, p, from, m, 0, G);
                outer<F, G>(xs, n, from, m, l.inputs, panel, S * W, to, G * W);
                if (l.norm) copy_panel(dz, p, from, m, h_first(K), S);
                outer<F, G>(hs, n, from, m, l.outputs, panel + H0, S * W, to + l.inputs * G * W, G * W);
            }
        if (l.project) projection_gradient(n);
    }

    // dW_hr' [hidden][outputs] += (o * t)' dr
    void projection_gradient(long n) {
        for (long i = 0; i < n; i++)
            for (long j = 0; j < l.hidden; j++) {
                const Vec<F> m = splat<F>(middles[i * units + j]);
                F* to = sums.project + j * wide;
                for (long q = 0; q < l.columns; q++)
                    store(to + q * W, fma(m, load(drs + i * wide + q * W), load(to + q * W)));
            }
    }

    void input_gradients(long s0, long s1) {
        alignas(64) F scratch[GROUP * 4 * W], zeros[4 * W] = {};
        const long vectors = (l.inputs + W - 1) / W;
        long frame = 0;
        for (long s = s0; s < s1; s++) {
            const long n = plan.alive(s);
            for (long q = 0; q < vectors; q += 4) {
                const long last = std::min(q + 4, vectors);
                for (long r = team.first(n); r < team.last(n); r += GROUP) {
                    const long m = std::min(GROUP, team.last(n) - r);
                    product_columns<F>(dzx + (frame + r) * row, row, row, l.wxt, q, last, zeros, 0, scratch, 4 * W, m,
                                       vectors);
                    for (long i = 0; i < m; i++) {
                        F* to = b.dx + run.frame_of(r + i, s) * l.inputs;
                        for (long p = q; p < last; p++)
                            store_first(to + p * W, load(scratch + i * 4 * W + (p - q) * W), l.inputs - p * W);
                    }
                }
            }
            frame += n;
        }
    }

    // What reaches the initial state: step -1.
    void first_state() {
        alignas(64) F scratch[GROUP * 4 * W], zeros[4 * W] = {};
        const long later = plan.steps > 0 ? plan.alive(0) : 0, K_h = K == Kind::gru ? 3 * units : row;
        if (team.id == 0) {
            for (long q = 0; q < l.columns; q += 4) {
                const long last = std::min(q + 4, l.columns);
                for (long r = 0; r < plan.rows; r += GROUP) {
                    const long m = std::min(GROUP, plan.rows - r), old = std::max(0L, std::min(m, later - r));
                    product_columns<F>(dz_last + r * row + (K == Kind::gru ? units : 0), row, K_h, l.wht, q, last,
                                       zeros, 0, scratch, 4 * W, old, l.columns);
                    for (long i = r; i < r + m; i++)
                        for (long p = q; p < last; p++) {
                            const long left = l.outputs - p * W;
                            Vec<F> v = load(dh + i * wide + p * W);
                            if (i < later) {
                                Vec<F> through = load(scratch + (i - r) * 4 * W + (p - q) * W);
                                if (f.h_mask)
                                    through = through * load_first(f.h_mask + plan.row(i) * l.outputs + p * W, left);
                                v = run.reset_before(i, 0) ? Vec<F>{} : v + through;
                            }
                            store_first(b.dh0 + plan.row(i) * l.outputs + p * W, v, left);
                        }
                }
            }
            if (K == Kind::lstm)
                for (long i = 0; i < plan.rows; i++) {
                    const bool cut = i < later && run.reset_before(i, 0);
                    R::widen(cut ? nullptr : dc + i * units, l.hidden, b.dc0 + plan.row(i) * l.hidden, l.hidden);
                }
        }
        team.wait();
    }
};

}  // namespace recurra::RECURRA_ISA
