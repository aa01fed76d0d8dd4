// The door to the runtime and the codec: names, shapes checked, one call each, the GIL released around it. The kernels
// for training are in kernel_bindings.cpp. No other file knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <exception>
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

template <class F>
recurra::Weights<F> weights_of(Kind kind, long inputs, long hidden, const Array<const F, 2>& ih,
                               const Array<const F, 2>& hh, const Maybe<const F, 1>& bih,
                               const Maybe<const F, 1>& bhh) {
    const size_t rows = size_t(recurra::gates(kind) * hidden);
    need(ih.shape(0) == rows && ih.shape(1) == size_t(inputs), "weight_ih must be [gates * hidden, inputs]");
    need(hh.shape(0) == rows && hh.shape(1) == size_t(hidden), "weight_hh must be [gates * hidden, hidden]");
    need((!bih || bih->shape(0) == rows) && (!bhh || bhh->shape(0) == rows), "a bias must be [gates * hidden]");
    recurra::Weights<F> w{};
    w.ih = ih.data(), w.hh = hh.data(), w.bias_ih = data_or_null(bih), w.bias_hh = data_or_null(bhh);
    return w;
}

template <class A>
void need_shape(const A& a, size_t d0, size_t d1, const char* rule) {
    need(a.shape(0) == d0 && a.shape(1) == d1, rule);
}
template <class A>
void need_shape(const A& a, size_t d0, size_t d1, size_t d2, const char* rule) {
    need(a.shape(0) == d0 && a.shape(1) == d1 && a.shape(2) == d2, rule);
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

}  // namespace

void bind_kernel(nb::module_& m);  // kernel_bindings.cpp

NB_MODULE(_core, m) {
    m.doc() =
        "recurra's C++ kernels: recurrent layers over time, forward and backward, and a product whose bits depend on "
        "the row alone.";
    nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const recurra::RecipeError& error) {
            PyErr_SetString(nb::module_::import_("recurra.errors").attr("RecipeError").ptr(), error.what());
        }
    });
    m.def(
        "isa", [] { return std::string(recurra::engine<float>().name); },
        "The instruction set in use: 'avx512', 'avx2' or 'portable'. The environment variable RECURRA_ISA lowers it.");
    bind_kernel(m);
    bind_series(m);
    bind_step(m);

    nb::class_<recurra::Stack>(m, "Stack", "A stack of causal recurrent layers, float32, weights packed once.")
        .def(
            "__init__",
            [](recurra::Stack* s, const std::string& cell) { new (s) recurra::Stack(recurra::kind_of(cell)); },
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

    m.def(
        "attend",
        [](Array<const float, 2> query, nb::list keys, nb::list values, Array<const int64_t, 1> of,
           Maybe<const float, 1> v, float scale, Maybe<const float, 2> past, Maybe<const float, 1> cover,
           Array<float, 2> weights, Array<float, 2> context) {
            const size_t rows = query.shape(0), size = query.shape(1);
            need(of.shape(0) == rows && weights.shape(0) == rows && context.shape(0) == rows, "a row for each query");
            need(keys.size() == values.size(), "values for each of the keys");
            need(!v || v->shape(0) == size, "v must be [size]");
            need(!cover || (v && past && cover->shape(0) == size), "cover must be [size], beside v and past");
            need(!past || (past->shape(0) == rows && past->shape(1) == weights.shape(1)), "past must be as weights");
            std::vector<Array<const float, 2>> k, m;
            for (size_t i = 0; i < keys.size(); i++) {
                k.push_back(nb::cast<Array<const float, 2>>(keys[i], false));
                m.push_back(nb::cast<Array<const float, 2>>(values[i], false));
                need_shape(k[i], m[i].shape(0), size, "keys must be [steps, size], a step for each of the values");
                need(m[i].shape(1) == context.shape(1), "values must be [steps, memory]");
                need(k[i].shape(0) && k[i].shape(0) <= weights.shape(1), "there must be a weight for each step");
            }
            for (size_t r = 0; r < rows; r++)
                need(of.data()[r] >= 0 && size_t(of.data()[r]) < keys.size(), "`of` must be places among the keys");
            nb::gil_scoped_release free;
            for (size_t r = 0; r < rows; r++) {
                const size_t i = size_t(of.data()[r]), steps = k[i].shape(0), wide = weights.shape(1);
                float* w = weights.data() + r * wide;
                std::fill(w + steps, w + wide, 0.0f);
                recurra::attend({query.data() + r * size, k[i].data(), m[i].data(), data_or_null(v),
                                 past ? past->data() + r * wide : nullptr, data_or_null(cover), scale, long(steps),
                                 long(size), long(context.shape(1)), w, context.data() + r * context.shape(1)});
            }
        },
        "query"_a.noconvert(), "keys"_a, "values"_a, "of"_a.noconvert(), "v"_a.none(), "scale"_a, "past"_a.none(),
        "cover"_a.none(), "weights"_a.noconvert(), "context"_a.noconvert(),
        "Fill weights and context: each query put to the memory of its number. A row's bits depend on that row alone.");
    m.def(
        "log_softmax",
        [](Array<const float, 2> x, Array<float, 2> y) {
            need_shape(y, x.shape(0), x.shape(1), "y must be as x");
            need(x.shape(1) > 0, "a row must hold a number");
            nb::gil_scoped_release free;
            recurra::log_softmax(x.data(), long(x.shape(0)), long(x.shape(1)), y.data());
        },
        "x"_a.noconvert(), "y"_a.noconvert(), "Fill y with x - log sum e^x of each row.");

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
