// A series' scale as a causal recursion, the same as recurra/codec/plain.py's. One observation x in (a logarithm, or
// the value itself; NaN = missing): level l and scale s move, and the network sees features in units of s.
//
//   seasonal         l = mean of the last `level` values              s = mean |x_t - x_{t-m}|, m the shortest season
//   running, frozen  l = mean, moving with gain max(1/n, gain)        s = mean |x - l|; frozen after `warmup` values
//   profile of a season m, one phase a step:  p <- p + max(1/round, smoothing) (x - mean_m - p)
//
// Plain double arithmetic, row by row and step by step: a row's bits depend on that row alone, however it is cut.
#pragma once
#include <cstdint>
#include <vector>

namespace recurra {

enum class Scale : int { seasonal = 0, running = 1, frozen = 2 };

struct Recursion {
    Scale kind;
    bool logarithm;  // x is a logarithm: its scale is a relative one
    std::vector<long> seasons, windows;
    std::vector<double> smoothing;
    long memory, level, warmup;
    double gain, prior;

    long features() const { return 6 + long(windows.size()) + 3 * long(seasons.size()); }
    long choices() const { return 2 + 2 * long(seasons.size()); }
};

// The state of `rows` series: ring [rows, memory], profiles[i] [rows, seasons[i]], the others [rows].
struct SeriesState {
    int64_t* count;
    double *ring, *level, *scale, *spread, *weight, *amplitude;
    std::vector<double*> profiles;
};

// Row r takes x[r, 0 .. lengths[r]) and changes its state. x, level, scale [rows, steps]; features [rows, steps, F];
// anchors [rows, steps, horizon, A] or null. What lies beyond a row's length is left as it is.
void encode(const Recursion& scaling, const SeriesState& state, long rows, long steps, const double* x,
            const int64_t* lengths, float* features, double* level, double* scale, long horizon, float* anchors);

// The naive answers for 1 .. horizon steps ahead, in units of the scale: out [rows, horizon, A].
void anchors(const Recursion& scaling, const SeriesState& state, long rows, long horizon, float* out);

}  // namespace recurra
