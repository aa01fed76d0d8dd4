// What one instruction set's engine can do. The same source (engine.cpp) is compiled once per instruction set;
// model.cpp picks. Everything here is raw pointers in the caller's memory: no Python, no torch, no allocation.
#pragma once
#include <cstdint>

#include "team.hpp"

namespace recurra {

// Rows that are worked on at once: their sums stay in the L1 cache, 48 x 256 bytes, and the register tiles are full.
constexpr long GROUP = 48;
constexpr long round_up(long n, long to) { return (n + to - 1) / to * to; }

enum class Kind : int { rnn_tanh = 0, rnn_relu = 1, lstm = 2, gru = 3 };

// Gates of a unit in the weights (torch's order: lstm i f g o, gru r z n).
constexpr int gates(Kind kind) { return kind == Kind::lstm ? 4 : kind == Kind::gru ? 3 : 1; }
// Sums of a unit in a step. gru: n r z and W_hn h + b_hn apart, since it is multiplied by r.
constexpr int slots(Kind kind) { return kind == Kind::lstm || kind == Kind::gru ? 4 : 1; }

// torch's parameters of the layer (float32 or float64, C order), G = gates, P = outputs; null for what it has not.
template <class F>
struct Weights {
    const F *ih, *hh, *bias_ih, *bias_hh;  // [G * hidden, inputs], [G * hidden, P], [G * hidden] twice
    const F* hr;                           // projection [P, hidden]
    const F* peephole;                     // lstm: [3 * hidden], i f o
    const F *gain_ih, *gain_hh;            // layer norm: [G * hidden] twice
    const F *gain_c, *bias_c;              // and for lstm [hidden] twice
};

// One layer, one direction. Units are grouped in panels of `width` (a vector register); a panel's gates lie side by
// side, and the last panel is padded with zero weights, so that no unit ever takes a different code path.
template <class F>
struct Layer {
    Kind kind;
    bool norm;                                      // layer norm
    long inputs, hidden, outputs, panels, columns;  // panels, columns: vectors over hidden and over outputs
    F* w;                                           // [panels][inputs, outputs][gates * width]
    F* bias;                                        // [panels][slots * width]
    F* project;                                     // columns over outputs (see packed_at), or null
    F* peephole;                                    // [panels][3 * width], or null
    F *gain_x, *gain;          // layer norm: [panels][slots * width] of the input and of h, or null
    F *gain_c, *bias_c;        // [panels * width], or null
    F *wxt, *wht, *unproject;  // backward only: columns over inputs, outputs and hidden
};

// Where the frame of (time t, batch row r) lies: packed sequences start time t at first[t].
struct Frames {
    const int64_t* first;
    long step, row;
    long at(long t, long r) const { return (first ? first[t] : t * step) + r * row; }
};

// The rows that one team plays, the longest first; null arrays where every row has all the steps.
struct Plan {
    long rows, steps, first_row;         // steps: of the longest row
    const int64_t* order;                // [rows] the batch's row
    const int64_t* length;               // [rows] in that order
    const int64_t* active;               // [steps] rows that are alive at step s
    const int64_t* before;               // [steps + 1] frames of this plan before step s
    long all_rows, first_place, places;  // of the call; the place of row i among them: first_place + i * places
    const int64_t* all_before;           // [steps + 1] frames of all rows before step s
    long row(long i) const { return order ? order[i] : first_row + i; }
    long end(long i) const { return length ? length[i] : steps; }
    long alive(long s) const { return active ? active[s] : rows; }
    long frame(long s) const { return before ? before[s] : s * rows; }
    // Where a row and its frame stand in what is saved, however the rows are divided.
    long place(long i) const { return first_place + i * places; }
    long saved(long s, long i) const { return (all_before ? all_before[s] : s * all_rows) + place(i); }
};

// The old value stays with these probabilities, or, where not training, takes this share (Krueger et al. 2017).
struct Zoneout {
    double h, c;
    bool training;
    uint64_t seed;
    uint32_t stream;  // h: + 2, c: + 3
    bool any() const { return h > 0 || c > 0; }
};

// What a forward pass reads and writes. P: outputs. By frames: element (frame, k) at frame * width + k.
template <class F>
struct Forward {
    long steps;  // of the whole call
    Frames frames;
    bool reverse;          // each row from its last frame to its first
    const F* x;            // by frames, inputs wide
    const uint8_t* reset;  // [batch, steps] or null: the state is zero before that step
    const F *h0, *c0;      // [batch, P], [batch, hidden]
    F *hn, *cn;
    F* y;             // by frames, P wide
    F* cells;         // by frames, hidden wide: every c; or null
    const F* h_mask;  // [batch, P] or null: what the recurrent product sees of h, a factor
    Zoneout zone;
    long every;       // 0: the gates are saved; k: they are computed again, from the cells of every k-th step
    F *saved, *kept;  // gates [frame][frame_size] and cells; null where no gradient is wanted
    F* work;          // forward_work() elements for each member of the team, and once more for the team
};

template <class F>
struct Backward {
    Forward<F> run;        // what the forward pass was given and wrote
    const F *dy, *dcells;  // gradients of y and cells, by frames; null for none
    const F *dhn, *dcn;    // gradients of the final state; null for none
    F* dx;                 // by frames; null where nobody wants it
    F *dh0, *dc0;          // [batch, P], [batch, hidden]
    F* sums;               // sums_size() elements, ADDED to: the gradients of the weights, packed; see unpack
};

// Gradients of the weights in torch's shapes; null where there is none or nobody wants it.
template <class F>
struct Gradients {
    F *ih, *hh, *bias_ih, *bias_hh, *hr, *peephole, *gain_ih, *gain_hh, *gain_c, *bias_c;
};

// One query and the memory it is put to, [steps][size] keys and [steps][memory] values: weights = softmax over s of a
// score, context = the mean of the values under them. With v the score is scale * v . tanh(query + key_s [+ past_s
// cover]), else scale * query . key_s.
template <class F>
struct Attend {
    const F *query, *keys, *values, *v, *past, *cover;
    F scale;
    long steps, size, memory;
    F *weights, *context;
};

template <class F>
struct Engine {
    const char* name;
    int width;
    void (*pack)(const Layer<F>&, const Weights<F>&);
    void (*pack_transposed)(const Layer<F>&, const Weights<F>&);
    long (*frame_size)(const Layer<F>&);  // numbers that a frame saves, its cells apart
    long (*forward_work)(const Layer<F>&, long rows, int team);
    void (*forward)(const Layer<F>&, const Forward<F>&, const Plan&, Team);
    long (*backward_work)(const Layer<F>&, long rows, long every, int team);
    void (*backward)(const Layer<F>&, const Backward<F>&, const Plan&, Team);
    long (*sums_size)(const Layer<F>&);
    void (*unpack)(const Layer<F>&, const F* sums, const Gradients<F>&);  // adds
    // y = x / (1 - p) where the mask of [steps, rows, units] keeps it, else 0
    void (*mask)(const F* x, F* y, long steps, long rows, long units, double p, uint64_t seed, uint32_t stream);
    void (*pack_linear)(const F* weight, long outputs, long inputs, F* packed);
    // y [rows, outputs] = x [rows, inputs] @ weight.T + bias, in a fixed order per element
    void (*linear)(const F* x, long rows, long inputs, const F* packed, const F* bias, long outputs, F* y, F* work);
    void (*attend)(const Attend<F>&);
    void (*log_softmax)(const F* x, long rows, long size, F* y);  // [rows, size]
};

namespace portable {
extern const Engine<float> f32;
extern const Engine<double> f64;
}  // namespace portable
namespace avx2 {
extern const Engine<float> f32;
extern const Engine<double> f64;
}  // namespace avx2
namespace avx512 {
extern const Engine<float> f32;
extern const Engine<double> f64;
}  // namespace avx512

}  // namespace recurra
