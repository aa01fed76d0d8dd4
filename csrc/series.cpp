#include "series.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace recurra {
namespace {

constexpr double CLIP = 10.0;       // features are held to this many scales
constexpr double FAR = 1e6;         // anchors to this many
constexpr double TINY = 1e-4;       // smallest scale of a logarithm; of plain values this share of their size, squared
constexpr double NOTHING = 1e-100;  // the scale of a series of zeros

// One series' numbers.
struct Row {
    int64_t& count;
    double* ring;
    double &level, &scale, &spread, &weight, &amplitude;
};

Row row_of(const Recursion& r, const SeriesState& s, long i) {
    return {s.count[i], s.ring + i * r.memory, s.level[i], s.scale[i], s.spread[i], s.weight[i], s.amplitude[i]};
}

void push(double* values, long n, double newest) {
    std::memmove(values, values + 1, size_t(n - 1) * sizeof(double));
    values[n - 1] = newest;
}

// The mean of the last `window` values, or of the n that there are.
double mean(const double* ring, long memory, int64_t n, long window) {
    if (window == 1) return ring[memory - 1];
    double sum = 0.0;
    for (long k = memory - window; k < memory; k++) sum += ring[k];
    return sum / double(std::min<int64_t>(n, window));
}

void rescale(const Recursion& r, Row& s, double value, double change, bool seen, bool warm, int64_t n) {
    const double taken = s.weight + 1.0;
    const bool moving = r.kind == Scale::frozen ? seen && taken <= double(r.warmup) : seen;
    double deviation;
    if (r.kind == Scale::seasonal) {
        if (seen || warm) s.level = mean(s.ring, r.memory, n, r.level);
        deviation = std::fabs(change);
    } else {
        if (moving) s.level += std::max(1.0 / taken, r.gain) * (value - s.level);
        deviation = std::fabs(value - s.level);
    }
    if (!warm) deviation = r.prior * (r.logarithm ? 1.0 : std::fabs(value));
    if (moving) {
        s.weight += 1.0;
        s.spread += std::max(1.0 / s.weight, r.gain) * (deviation - s.spread);
    }
    const double smallest = r.logarithm ? TINY : TINY * TINY * std::fabs(s.level) + NOTHING;
    s.scale = s.weight > 0.0 ? std::max(s.spread, smallest) : 1.0;
}

void observe(const Recursion& r, const SeriesState& state, long i, double x, float* features) {
    Row s = row_of(r, state, i);
    const long M = r.memory;
    const double before = s.ring[M - 1], level_before = s.level;
    const bool warm = s.count > 0;
    const bool seen = std::isfinite(x);
    double expected = before;
    for (long m : r.seasons)
        if (s.count >= m) expected = s.ring[M - m];
    const double value = seen ? x : expected;
    const double first_lag = r.seasons.empty() ? before : s.ring[M - r.seasons[0]];
    double lags[8];
    for (size_t j = 0; j < r.seasons.size(); j++) lags[j] = s.ring[M - r.seasons[j]];
    push(s.ring, M, value);
    const int64_t live = seen || warm ? 1 : 0;
    s.count += live;
    const int64_t n = std::max<int64_t>(s.count, 1);
    const double step = value - before;
    const bool round = !r.seasons.empty() && s.count > r.seasons[0];
    rescale(r, s, value, round ? value - first_lag : step, seen, warm, n);
    if (seen) {
        const double pace = std::max(1.0 / double(n), 1.0 / double(std::max({r.level, M / 4, 8L})));
        s.amplitude += pace * (std::fabs(value - s.level) - s.amplitude);
    }
    const double amplitude = std::max(s.amplitude, 0.1 * s.scale), unit = 1.0 / s.scale;

    double f[64];
    long k = 0;
    f[k++] = seen ? 1.0 : 0.0;
    f[k++] = (value - s.level) / amplitude;
    f[k++] = warm ? step * unit : 0.0;
    f[k++] = warm ? (s.level - level_before) * unit : 0.0;
    f[k++] = r.logarithm ? std::log(s.scale) / 2.0 + 1.0 : 0.0;
    f[k++] = std::log(amplitude * unit);
    for (long w : r.windows) f[k++] = (value - mean(s.ring, M, n, w)) * unit;
    for (size_t j = 0; j < r.seasons.size(); j++) {
        const long m = r.seasons[j];
        const bool known = s.count > m;
        double* profile = state.profiles[j] + i * m;
        const double residual = value - mean(s.ring, M, n, m), old = profile[0];
        const int64_t rounds = (s.count - live) / m;
        const double pace = std::max(r.smoothing[j], 1.0 / double(rounds + 1));
        push(profile, m, seen || rounds == 0 ? old + pace * (residual - old) : old);
        f[k++] = known ? 1.0 : 0.0;
        f[k++] = known ? (value - lags[j]) * unit : 0.0;
        f[k++] = known ? (residual - old) * unit : 0.0;
    }
    features[0] = float(f[0]);
    for (long j = 1; j < k; j++) features[j] = seen ? float(std::min(std::max(f[j], -CLIP), CLIP)) : 0.0f;
}

void anchors_of(const Recursion& r, const SeriesState& state, long i, long horizon, float* out) {
    const Row s = row_of(r, state, i);
    const long M = r.memory, A = r.choices();
    const double unit = 1.0 / s.scale;
    const int64_t n = std::max<int64_t>(s.count, 1);
    const auto held = [](double v) { return float(std::min(std::max(v, -FAR), FAR)); };
    const float last = held((s.ring[M - 1] - s.level) * unit);
    for (long k = 0; k < horizon; k++) {
        out[k * A] = last;
        out[k * A + 1] = 0.0f;
    }
    for (size_t j = 0; j < r.seasons.size(); j++) {
        const long m = r.seasons[j], at = 2 + 2 * long(j);
        const double middle = mean(s.ring, M, n, m) - s.level;
        const double* profile = state.profiles[j] + i * m;
        for (long k = 0; k < horizon; k++) {
            const long phase = k % m;
            float* o = out + k * A;
            const bool known = s.count >= m - phase;
            o[at] = known ? held((s.ring[M - m + phase] - s.level) * unit) : o[at - 1];
            o[at + 1] = known ? held((profile[phase] + middle) * unit) : o[at - 1];
        }
    }
}

}  // namespace

void encode(const Recursion& r, const SeriesState& state, long rows, long steps, const double* x,
            const int64_t* lengths, float* features, double* level, double* scale, long horizon, float* anchors) {
    const long F = r.features(), A = horizon * r.choices();
    for (long i = 0; i < rows; i++)
        for (long t = 0; t < lengths[i]; t++) {
            const long at = i * steps + t;
            observe(r, state, i, x[at], features + at * F);
            level[at] = state.level[i];
            scale[at] = state.scale[i];
            if (anchors) anchors_of(r, state, i, horizon, anchors + at * A);
        }
}

void anchors(const Recursion& r, const SeriesState& state, long rows, long horizon, float* out) {
    for (long i = 0; i < rows; i++) anchors_of(r, state, i, horizon, out + i * horizon * r.choices());
}

}  // namespace recurra
