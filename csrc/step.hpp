// One step of one layer for streams whose state stays where it is: what one instruction set (step.cpp) can do.
// bound.cpp picks and holds the memory. Everything here is raw pointers: no Python, no allocation.
#pragma once
#include <cstdint>

#include "engine.hpp"

namespace recurra {

// How a matrix is kept. Each 32-bit word holds 1, 2 or 4 consecutive columns k of one row.
enum class Format : int { float32 = 0, bfloat16 = 1, int8 = 2 };
constexpr int columns(Format format) { return format == Format::int8 ? 4 : format == Format::bfloat16 ? 2 : 1; }

// A matrix [gates * hidden, K]. Its units lie in groups of panels, so that one row's step has enough sums in flight and
// still reads the weights from the first to the last: [groups][ceil(K / columns)][gate][panel of the group][width].
struct Matrix {
    Format format;
    long K, words_per_row;  // words_per_row = ceil(K / columns)
    uint32_t* words;
    int32_t* offset;  // int8: -128 * the sum of the row, [groups][gate][panel][width]
    float* scale;     // int8: what a sum is worth, likewise
};

struct StepLayer {
    Kind kind;
    long hidden, panels, group;  // group: panels side by side; the last group may hold fewer
    Matrix x, h;
    float* bias;  // [groups][slot][panel][width]
};

// The rows of one step of one layer. The state is overwritten by the new one.
struct StepRows {
    long rows;
    const float* x;        // [rows, x.K]
    float *h, *c;          // [rows, hidden]; c for lstm
    float* before;         // scratch: [STEP_ROWS, hidden]
    uint8_t *xq, *hq;      // scratch of int8: [STEP_ROWS, words_per_row * 4] each
    float *x_nan, *h_nan;  // scratch of int8: [STEP_ROWS] each
    bool backward;         // the last group first
};
constexpr long STEP_ROWS = 96;  // rows done together: what they hold stays in the L2 cache beside the weights

struct Stepper {
    int width;
    int (*group)(Kind kind, long rows);  // panels side by side, best for so many rows
    void (*pack)(const StepLayer&, const Weights<float>&);
    void (*step)(const StepLayer&, const StepRows&);  // rows <= STEP_ROWS
};

namespace portable {
extern const Stepper stepper;
}
namespace avx2 {
extern const Stepper stepper;
}
namespace avx512 {
extern const Stepper stepper;
}
namespace avx512vnni {  // the same, where vpdpbusd sums int8
extern const Stepper stepper;
}

}  // namespace recurra
