// What one instruction set's engine can do. The same source (engine.cpp) is compiled once per instruction set;
// model.cpp picks. Everything here is raw pointers in the caller's memory: no Python, no torch, no allocation.
#pragma once
#include <cstdint>

namespace recurra {

enum class Kind : int { rnn_tanh = 0, rnn_relu = 1, lstm = 2, gru = 3 };

// Gates of a unit in the weights (torch's order: lstm i f g o, gru r z n).
constexpr int gates(Kind kind) { return kind == Kind::lstm ? 4 : kind == Kind::gru ? 3 : 1; }
// Numbers kept per unit and step for the backward pass. gru: n r z and W_hn h + b_hn (it is multiplied by r, so it is
// needed).
constexpr int slots(Kind kind) { return kind == Kind::lstm || kind == Kind::gru ? 4 : 1; }

// One layer, one direction. Units are grouped in panels of `width` (a vector register); a panel's gates lie side by
// side, and the last panel is padded with zero weights, so that no unit ever takes a different code path.
template <class F>
struct Layer {
    Kind kind;
    long inputs, hidden, panels;
    F* wx;    // [panels][inputs][gates * width]
    F* wh;    // [panels][hidden][gates * width]
    F* bias;  // [panels][slots * width]
    F* wxt;   // backward only: [ceil(inputs / width)][panels * slots * width][width], grouped by four
    F* wht;   // backward only: the same over hidden
};

// torch's parameters of the layer (float32 or float64, C order). The biases may be null.
template <class F>
struct Weights {
    const F *ih, *hh, *bias_ih, *bias_hh;  // [gates * hidden, inputs], [gates * hidden, hidden], [gates * hidden] twice
};

// Strides are in elements. x, y: element (row, step, k) at row * x_row + step * x_step + k.
template <class F>
struct Forward {
    long rows, steps;
    const F* x;
    long x_row, x_step;
    const int64_t* lengths;  // [rows] or null: frames from lengths[row] on give y = 0 and leave the state alone
    const uint8_t* reset;  // or null: non-zero at row * reset_row + step * reset_step zeroes the state BEFORE that step
    long reset_row, reset_step;
    const F *h0, *c0;  // [rows, hidden]; c0 for lstm
    F* y;
    long y_row, y_step;
    F *hn, *cn;  // [rows, hidden]; may be the same memory as h0, c0
    F* cs;       // lstm, or null: every c_t, strides as y
    F* saved;    // null, or [steps * rows][panels * slots * width] for the backward pass
    F* work;     // forward_work() elements
};

template <class F>
struct Backward {
    Forward<F> run;              // what the forward pass was given and wrote (y, cs, saved)
    const F *dy, *dcs;           // gradients of y and cs, strides as y; null for none
    const F *dhn, *dcn;          // gradients of the final state [rows, hidden]; null for none
    F* dx;                       // strides as x; null where nobody wants it
    F *dh0, *dc0;                // [rows, hidden]
    F *dih, *dhh, *dbih, *dbhh;  // ADDED to, torch's shapes
    F* work;                     // backward_work() elements
};

template <class F>
struct Engine {
    const char* name;
    int width;
    void (*pack)(const Layer<F>&, const Weights<F>&);
    void (*pack_transposed)(const Layer<F>&, const Weights<F>&);
    long (*forward_work)(const Layer<F>&, long rows, long steps);
    void (*forward)(const Layer<F>&, const Forward<F>&);
    long (*backward_work)(const Layer<F>&, long rows, long steps);
    void (*backward)(const Layer<F>&, const Backward<F>&);
    // y [rows, outputs] = x [rows, inputs] @ weight.T + bias, in a fixed order per element
    void (*pack_linear)(const F* weight, long outputs, long inputs, F* packed);
    void (*linear)(const F* x, long rows, long inputs, const F* packed, const F* bias, long outputs, F* y, F* work);
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
