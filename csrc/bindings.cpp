// The only file that knows Python: names, shapes checked, one call each, the GIL released around it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.hpp"
#include "series.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using recurra::Kind;

void bind_step(nb::module_& m);  // step_bindings.cpp

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Maybe = std::optional<Array<T, N>>;

void need(bool ok, const char* rule) {
    if (!ok) throw std::invalid_argument(rule);
}

template <class A>
auto data_or_null(const A& a) -> decltype(a->data()) {
    return a ? a->data() : nullptr;
}

Kind kind_of(const std::string& name) {
    if (name == "rnn_tanh") return Kind::rnn_tanh;
    if (name == "rnn_relu") return Kind::rnn_relu;
    if (name == "lstm") return Kind::lstm;
    if (name == "gru") return Kind::gru;
    throw std::invalid_argument("a cell is 'rnn_tanh', 'rnn_relu', 'lstm' or 'gru', not '" + name + "'");
}

template <class F>
recurra::Weights<F> weights_of(Kind kind, long inputs, long hidden, const Array<const F, 2>& ih,
                               const Array<const F, 2>& hh, const Maybe<const F, 1>& bih,
                               const Maybe<const F, 1>& bhh) {
    const size_t rows = size_t(recurra::gates(kind) * hidden);
    need(ih.shape(0) == rows && ih.shape(1) == size_t(inputs), "weight_ih must be [gates * hidden, inputs]");
    need(hh.shape(0) == rows && hh.shape(1) == size_t(hidden), "weight_hh must be [gates * hidden, hidden]");
    need((!bih || bih->shape(0) == rows) && (!bhh || bhh->shape(0) == rows), "a bias must be [gates * hidden]");
    return {ih.data(), hh.data(), data_or_null(bih), data_or_null(bhh)};
}

template <class A>
void need_shape(const A& a, size_t d0, size_t d1, const char* rule) {
    need(a.shape(0) == d0 && a.shape(1) == d1, rule);
}
template <class A>
void need_shape(const A& a, size_t d0, size_t d1, size_t d2, const char* rule) {
    need(a.shape(0) == d0 && a.shape(1) == d1 && a.shape(2) == d2, rule);
}

template <class F>
void forward(const std::string& cell, Array<const F, 3> x, Maybe<const int64_t, 1> lengths, Maybe<const bool, 2> reset,
             Array<const F, 2> h0, Maybe<const F, 2> c0, Array<const F, 2> ih, Array<const F, 2> hh,
             Maybe<const F, 1> bih, Maybe<const F, 1> bhh, Array<F, 3> y, Maybe<F, 3> cs, Array<F, 2> hn,
             Maybe<F, 2> cn, Maybe<F, 1> saved, int threads) {
    const Kind kind = kind_of(cell);
    const long T = long(x.shape(0)), B = long(x.shape(1)), I = long(x.shape(2)), H = long(h0.shape(1));
    const auto w = weights_of<F>(kind, I, H, ih, hh, bih, bhh);
    need_shape(h0, B, H, "h0 must be [rows, hidden]");
    need_shape(hn, B, H, "hn must be [rows, hidden]");
    need_shape(y, T, B, H, "y must be [steps, rows, hidden]");
    need(kind != Kind::lstm || (c0 && cn), "an lstm needs c0 and cn");
    if (c0) need_shape(*c0, B, H, "c0 must be [rows, hidden]");
    if (cn) need_shape(*cn, B, H, "cn must be [rows, hidden]");
    if (cs) need_shape(*cs, T, B, H, "cs must be [steps, rows, hidden]");
    if (lengths) need(lengths->shape(0) == size_t(B), "lengths must be [rows]");
    if (reset) need_shape(*reset, B, T, "reset must be [rows, steps]");
    if (saved) need(long(saved->shape(0)) == recurra::saved_size<F>(kind, B, T, H), "saved must be [saved_size()]");
    recurra::Forward<F> f{};
    f.rows = B, f.steps = T;
    f.x = x.data(), f.x_row = I, f.x_step = B * I;
    f.lengths = data_or_null(lengths);
    f.reset = reinterpret_cast<const uint8_t*>(data_or_null(reset)), f.reset_row = T, f.reset_step = 1;
    f.h0 = h0.data(), f.c0 = data_or_null(c0);
    f.y = y.data(), f.y_row = H, f.y_step = B * H;
    f.hn = hn.data(), f.cn = data_or_null(cn), f.cs = data_or_null(cs), f.saved = data_or_null(saved);
    nb::gil_scoped_release free;
    const recurra::Packed<F> packed(kind, I, H, w, false);
    recurra::forward(packed.layer(), f, threads);
}

template <class F>
void backward(const std::string& cell, Array<const F, 3> x, Maybe<const int64_t, 1> lengths, Maybe<const bool, 2> reset,
              Array<const F, 2> h0, Maybe<const F, 2> c0, Array<const F, 2> ih, Array<const F, 2> hh,
              Array<const F, 3> y, Maybe<const F, 3> cs, Array<const F, 1> saved, Maybe<const F, 3> dy,
              Maybe<const F, 3> dcs, Maybe<const F, 2> dhn, Maybe<const F, 2> dcn, Maybe<F, 3> dx, Array<F, 2> dh0,
              Maybe<F, 2> dc0, Array<F, 2> dih, Array<F, 2> dhh, Array<F, 1> dbih, Array<F, 1> dbhh, int threads) {
    const Kind kind = kind_of(cell);
    const long T = long(x.shape(0)), B = long(x.shape(1)), I = long(x.shape(2)), H = long(h0.shape(1));
    const size_t G = size_t(recurra::gates(kind) * H);
    const auto w = weights_of<F>(kind, I, H, ih, hh, std::nullopt, std::nullopt);
    need_shape(h0, B, H, "h0 must be [rows, hidden]");
    need_shape(dh0, B, H, "dh0 must be [rows, hidden]");
    need_shape(y, T, B, H, "y must be [steps, rows, hidden]");
    need(kind != Kind::lstm || (c0 && cs && dc0), "an lstm needs c0, cs and dc0");
    if (c0) need_shape(*c0, B, H, "c0 must be [rows, hidden]");
    if (dc0) need_shape(*dc0, B, H, "dc0 must be [rows, hidden]");
    if (cs) need_shape(*cs, T, B, H, "cs must be [steps, rows, hidden]");
    if (dy) need_shape(*dy, T, B, H, "dy must be [steps, rows, hidden]");
    if (dcs) need_shape(*dcs, T, B, H, "dcs must be [steps, rows, hidden]");
    if (dhn) need_shape(*dhn, B, H, "dhn must be [rows, hidden]");
    if (dcn) need_shape(*dcn, B, H, "dcn must be [rows, hidden]");
    if (dx) need_shape(*dx, T, B, I, "dx must be [steps, rows, inputs]");
    if (lengths) need(lengths->shape(0) == size_t(B), "lengths must be [rows]");
    if (reset) need_shape(*reset, B, T, "reset must be [rows, steps]");
    need(long(saved.shape(0)) == recurra::saved_size<F>(kind, B, T, H), "saved must be [saved_size()]");
    need_shape(dih, G, I, "dih must be [gates * hidden, inputs]");
    need_shape(dhh, G, H, "dhh must be [gates * hidden, hidden]");
    need(dbih.shape(0) == G && dbhh.shape(0) == G, "a bias gradient must be [gates * hidden]");
    recurra::Backward<F> b{};
    recurra::Forward<F>& f = b.run;
    f.rows = B, f.steps = T;
    f.x = x.data(), f.x_row = I, f.x_step = B * I;
    f.lengths = data_or_null(lengths);
    f.reset = reinterpret_cast<const uint8_t*>(data_or_null(reset)), f.reset_row = T, f.reset_step = 1;
    f.h0 = h0.data(), f.c0 = data_or_null(c0);
    // The engine only reads these on its way back.
    f.y = const_cast<F*>(y.data()), f.y_row = H, f.y_step = B * H;
    f.cs = const_cast<F*>(data_or_null(cs)), f.saved = const_cast<F*>(saved.data());
    b.dy = data_or_null(dy), b.dcs = data_or_null(dcs), b.dhn = data_or_null(dhn), b.dcn = data_or_null(dcn);
    b.dx = data_or_null(dx), b.dh0 = dh0.data(), b.dc0 = data_or_null(dc0);
    b.dih = dih.data(), b.dhh = dhh.data(), b.dbih = dbih.data(), b.dbhh = dbhh.data();
    nb::gil_scoped_release free;
    const recurra::Packed<F> packed(kind, I, H, w, true);
    recurra::backward(packed.layer(), b, threads);
}

// The arrays of a series' state, in this order, checked against the recursion.
recurra::SeriesState series_state(const recurra::Recursion& r, const Array<int64_t, 1>& count,
                                  const std::vector<Array<double, 1>>& numbers, const Array<double, 2>& ring,
                                  const std::vector<Array<double, 2>>& profiles) {
    const size_t rows = count.shape(0);
    need(numbers.size() == 5, "numbers must be level, scale, spread, weight, amplitude");
    for (const auto& a : numbers) need(a.shape(0) == rows, "every number must be [rows]");
    need_shape(ring, rows, size_t(r.memory), "ring must be [rows, memory]");
    need(profiles.size() == r.seasons.size(), "there must be a profile for each season");
    recurra::SeriesState s{count.data(),      ring.data(),       numbers[0].data(), numbers[1].data(),
                           numbers[2].data(), numbers[3].data(), numbers[4].data(), {}};
    for (size_t j = 0; j < profiles.size(); j++) {
        need_shape(profiles[j], rows, size_t(r.seasons[j]), "a profile must be [rows, season]");
        s.profiles.push_back(profiles[j].data());
    }
    return s;
}

void bind_series(nb::module_& m) {
    using recurra::Recursion;
    nb::class_<Recursion>(m, "Recursion", "The level, scale and seasons of series, one causal step after the other.")
        .def(
            "__init__",
            [](Recursion* self, int kind, bool logarithm, std::vector<long> seasons, std::vector<long> windows,
               std::vector<double> smoothing, long memory, long level, long warmup, double gain, double prior) {
                need(kind >= 0 && kind <= 2, "kind is 0 (seasonal), 1 (running) or 2 (frozen)");
                need(seasons.size() == smoothing.size() && seasons.size() <= 8, "at most 8 seasons, a gain for each");
                need(windows.size() <= 32, "at most 32 windows");
                need(level >= 1 && level <= memory, "level must lie between 1 and memory");
                for (long w : seasons) need(w >= 1 && w <= memory, "a season must lie between 1 and memory");
                for (long w : windows) need(w >= 1 && w <= memory, "a window must lie between 1 and memory");
                new (self) Recursion{
                    recurra::Scale(kind), logarithm, seasons, windows, smoothing, memory, level, warmup, gain, prior};
            },
            "kind"_a, "logarithm"_a, "seasons"_a, "windows"_a, "smoothing"_a, "memory"_a, "level"_a, "warmup"_a,
            "gain"_a, "prior"_a)
        .def(
            "encode",
            [](const Recursion& r, Array<int64_t, 1> count, std::vector<Array<double, 1>> numbers,
               Array<double, 2> ring, std::vector<Array<double, 2>> profiles, Array<const double, 2> x,
               Array<const int64_t, 1> lengths, Array<float, 3> features, Array<double, 2> level,
               Array<double, 2> scale, Maybe<float, 4> anchors) {
                const auto state = series_state(r, count, numbers, ring, profiles);
                const size_t N = count.shape(0), T = x.shape(1);
                need_shape(x, N, T, "x must be [rows, steps]");
                need(lengths.shape(0) == N, "lengths must be [rows]");
                for (size_t i = 0; i < N; i++)
                    need(lengths(i) >= 0 && lengths(i) <= int64_t(T), "a length must lie between 0 and steps");
                need_shape(features, N, T, size_t(r.features()), "features must be [rows, steps, features]");
                need_shape(level, N, T, "level must be [rows, steps]");
                need_shape(scale, N, T, "scale must be [rows, steps]");
                if (anchors)
                    need(anchors->shape(0) == N && anchors->shape(1) == T && anchors->shape(3) == size_t(r.choices()),
                         "anchors must be [rows, steps, horizon, choices]");
                const long horizon = anchors ? long(anchors->shape(2)) : 0;
                nb::gil_scoped_release free;
                recurra::encode(r, state, long(N), long(T), x.data(), lengths.data(), features.data(), level.data(),
                                scale.data(), horizon, data_or_null(anchors));
            },
            "count"_a.noconvert(), "numbers"_a.noconvert(), "ring"_a.noconvert(), "profiles"_a.noconvert(),
            "x"_a.noconvert(), "lengths"_a.noconvert(), "features"_a.noconvert(), "level"_a.noconvert(),
            "scale"_a.noconvert(), "anchors"_a.noconvert().none(),
            "Take x; fill features, level, scale and anchors; the state changes in place.")
        .def(
            "anchors",
            [](const Recursion& r, Array<int64_t, 1> count, std::vector<Array<double, 1>> numbers,
               Array<double, 2> ring, std::vector<Array<double, 2>> profiles, Array<float, 3> out) {
                const auto state = series_state(r, count, numbers, ring, profiles);
                need(out.shape(0) == count.shape(0) && out.shape(2) == size_t(r.choices()),
                     "out must be [rows, horizon, choices]");
                nb::gil_scoped_release free;
                recurra::anchors(r, state, long(count.shape(0)), long(out.shape(1)), out.data());
            },
            "count"_a.noconvert(), "numbers"_a.noconvert(), "ring"_a.noconvert(), "profiles"_a.noconvert(),
            "out"_a.noconvert(), "Fill the naive answers known now.");
}

template <class F>
void bind_training(nb::module_& m) {
    m.def("forward", &forward<F>, "cell"_a, "x"_a.noconvert(), "lengths"_a.noconvert().none(),
          "reset"_a.noconvert().none(), "h0"_a.noconvert(), "c0"_a.noconvert().none(), "weight_ih"_a.noconvert(),
          "weight_hh"_a.noconvert(), "bias_ih"_a.noconvert().none(), "bias_hh"_a.noconvert().none(), "y"_a.noconvert(),
          "cs"_a.noconvert().none(), "hn"_a.noconvert(), "cn"_a.noconvert().none(), "saved"_a.noconvert().none(),
          "threads"_a,
          "One layer over time: fills y, cs, hn, cn and saved. Everything is time first and C-contiguous.");
    m.def("backward", &backward<F>, "cell"_a, "x"_a.noconvert(), "lengths"_a.noconvert().none(),
          "reset"_a.noconvert().none(), "h0"_a.noconvert(), "c0"_a.noconvert().none(), "weight_ih"_a.noconvert(),
          "weight_hh"_a.noconvert(), "y"_a.noconvert(), "cs"_a.noconvert().none(), "saved"_a.noconvert(),
          "dy"_a.noconvert().none(), "dcs"_a.noconvert().none(), "dhn"_a.noconvert().none(), "dcn"_a.noconvert().none(),
          "dx"_a.noconvert().none(), "dh0"_a.noconvert(), "dc0"_a.noconvert().none(), "dweight_ih"_a.noconvert(),
          "dweight_hh"_a.noconvert(), "dbias_ih"_a.noconvert(), "dbias_hh"_a.noconvert(), "threads"_a,
          "Gradients of `forward`: fills dx, dh0, dc0 and ADDS to the four of the weights.");
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() =
        "recurra's C++ kernels: recurrent layers over time, forward and backward, and a product whose bits depend on "
        "the row alone.";
    m.def(
        "isa", [] { return std::string(recurra::engine<float>().name); },
        "The instruction set in use: 'avx512', 'avx2' or 'portable'. The environment variable RECURRA_ISA lowers it.");
    m.def(
        "saved_size",
        [](const std::string& cell, long rows, long steps, long hidden, bool is_double) {
            return is_double ? recurra::saved_size<double>(kind_of(cell), rows, steps, hidden)
                             : recurra::saved_size<float>(kind_of(cell), rows, steps, hidden);
        },
        "cell"_a, "rows"_a, "steps"_a, "hidden"_a, "double"_a, "How many numbers `forward` must save for `backward`.");
    bind_training<float>(m);
    bind_training<double>(m);
    bind_series(m);
    bind_step(m);

    nb::class_<recurra::Stack>(m, "Stack", "A stack of causal recurrent layers, float32, weights packed once.")
        .def(
            "__init__", [](recurra::Stack* s, const std::string& cell) { new (s) recurra::Stack(kind_of(cell)); },
            "cell"_a)
        .def(
            "add",
            [](recurra::Stack& s, Array<const float, 2> ih, Array<const float, 2> hh, Maybe<const float, 1> bih,
               Maybe<const float, 1> bhh) {
                const long I = long(ih.shape(1)), H = long(hh.shape(1));
                const auto w = weights_of<float>(s.kind(), I, H, ih, hh, bih, bhh);
                need(s.depth() == 0 || (I == s.hidden() && H == s.hidden()),
                     "a layer above the first must be [hidden, hidden]");
                s.add(I, H, w);
            },
            "weight_ih"_a, "weight_hh"_a, "bias_ih"_a.none(), "bias_hh"_a.none(), "Put a layer on top.")
        .def(
            "run",
            [](const recurra::Stack& s, Array<const float, 3> x, Maybe<const int64_t, 1> lengths,
               Array<const float, 3> h, Maybe<const float, 3> c, Array<float, 3> y, Array<float, 3> hn,
               Maybe<float, 3> cn) {
                const size_t B = x.shape(0), T = x.shape(1), H = size_t(s.hidden()), L = size_t(s.depth());
                need(x.shape(2) == size_t(s.inputs()), "x must be [rows, steps, inputs]");
                need_shape(h, L, B, H, "h must be [layers, rows, hidden]");
                need_shape(hn, L, B, H, "hn must be [layers, rows, hidden]");
                need(!s.has_cell() || (c && cn), "an lstm needs c and cn");
                if (c) need_shape(*c, L, B, H, "c must be [layers, rows, hidden]");
                if (cn) need_shape(*cn, L, B, H, "cn must be [layers, rows, hidden]");
                need_shape(y, B, T, H, "y must be [rows, steps, hidden]");
                if (lengths) need(lengths->shape(0) == B, "lengths must be [rows]");
                nb::gil_scoped_release free;
                s.run(x.data(), long(B), long(T), data_or_null(lengths), h.data(),
                      s.has_cell() ? data_or_null(c) : nullptr, y.data(), hn.data(),
                      s.has_cell() ? data_or_null(cn) : nullptr);
            },
            "x"_a.noconvert(), "lengths"_a.noconvert().none(), "h"_a.noconvert(), "c"_a.noconvert().none(),
            "y"_a.noconvert(), "hn"_a.noconvert(), "cn"_a.noconvert().none(),
            "Fill y, hn and cn. A row's bits depend on that row alone.");

    nb::class_<recurra::LinearMap>(m, "LinearMap",
                                   "y = x @ weight.T + bias in float32, a row's bits depending on that row alone.")
        .def(
            "__init__",
            [](recurra::LinearMap* s, Array<const float, 2> weight, Maybe<const float, 1> bias) {
                need(!bias || bias->shape(0) == weight.shape(0), "bias must be [outputs]");
                new (s)
                    recurra::LinearMap(weight.data(), data_or_null(bias), long(weight.shape(0)), long(weight.shape(1)));
            },
            "weight"_a, "bias"_a.none())
        .def(
            "run",
            [](const recurra::LinearMap& s, Array<const float, 2> x, Array<float, 2> y) {
                need(x.shape(1) == size_t(s.inputs()), "x must be [rows, inputs]");
                need_shape(y, x.shape(0), size_t(s.outputs()), "y must be [rows, outputs]");
                nb::gil_scoped_release free;
                s.run(x.data(), long(x.shape(0)), y.data());
            },
            "x"_a.noconvert(), "y"_a.noconvert(), "Fill y.");
}
