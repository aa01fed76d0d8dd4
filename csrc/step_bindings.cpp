// The bound step for Python: shapes checked when it is bound, none in a step.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "bound.hpp"
#include "model.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using recurra::Format;
using recurra::Kind;

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Maybe = std::optional<Array<T, N>>;

// Multiply-adds of a step, some 20 us of them, from which on it releases the GIL. Below, that would only cost: 30 ns,
// and the wait for having it back.
constexpr double WORTH_RELEASING = 5e5;

void need(bool ok, const char* rule) {
    if (!ok) throw std::invalid_argument(rule);
}

Format format_of(const std::string& name) {
    if (name == "float32") return Format::float32;
    if (name == "bfloat16") return Format::bfloat16;
    if (name == "int8") return Format::int8;
    throw std::invalid_argument("weights are 'float32', 'bfloat16' or 'int8', not '" + name + "'");
}

// The stack, and the arrays that it writes to kept alive.
struct BoundArrays {
    Array<const float, 2> x;
    Array<float, 3> h;
    Maybe<float, 3> c;
    recurra::Bound bound;
};

}  // namespace

void bind_step(nb::module_& m) {
    nb::class_<BoundArrays>(m, "Bound", "A stack of recurrent layers bound to x and its state, weights packed once.")
        .def(
            "__init__",
            [](BoundArrays* self, const std::string& cell, const std::string& weights, Array<const float, 2> x,
               Array<float, 3> h, Maybe<float, 3> c) {
                const Kind kind = recurra::kind_of(cell);
                const size_t rows = x.shape(0);
                need(rows >= 1 && x.shape(1) >= 1, "x must be [rows, inputs], both at least 1");
                need(h.shape(0) >= 1 && h.shape(1) == rows && h.shape(2) >= 1, "h must be [layers, rows, hidden]");
                need((kind == Kind::lstm) == c.has_value(), "an lstm needs c, the others have none");
                for (size_t i = 0; c && i < 3; i++) need(c->shape(i) == h.shape(i), "c must be [layers, rows, hidden]");
                need(kind != Kind::rnn_relu || format_of(weights) != Format::int8,
                     "int8 needs |h| <= 1, which rnn_relu does not keep");
                new (self) BoundArrays{x, h, c,
                                       recurra::Bound(kind, format_of(weights), long(rows), long(x.shape(1)),
                                                      long(h.shape(2)), x.data(), h.data(), c ? c->data() : nullptr)};
            },
            "cell"_a, "weights"_a, "x"_a.noconvert(), "h"_a.noconvert(), "c"_a.noconvert().none())
        .def(
            "add",
            [](BoundArrays& self, Array<const float, 2> ih, Array<const float, 2> hh, Maybe<const float, 1> bih,
               Maybe<const float, 1> bhh) {
                recurra::Bound& b = self.bound;
                const size_t rows = size_t(recurra::gates(b.kind()) * b.hidden());
                need(b.depth() < long(self.h.shape(0)), "h has no room for another layer");
                need(ih.shape(0) == rows && ih.shape(1) == size_t(b.inputs()),
                     "weight_ih must be [gates * hidden, inputs]");
                need(hh.shape(0) == rows && hh.shape(1) == size_t(b.hidden()),
                     "weight_hh must be [gates * hidden, hidden]");
                need((!bih || bih->shape(0) == rows) && (!bhh || bhh->shape(0) == rows),
                     "a bias must be [gates * hidden]");
                b.add({ih.data(), hh.data(), bih ? bih->data() : nullptr, bhh ? bhh->data() : nullptr});
            },
            "weight_ih"_a, "weight_hh"_a, "bias_ih"_a.none(), "bias_hh"_a.none(), "Put a layer on top.")
        .def(
            "step",
            [](BoundArrays& self) {
                need(self.bound.depth() == long(self.h.shape(0)), "every layer of h must be added before a step");
                if (self.bound.work() < WORTH_RELEASING) return self.bound.step();
                nb::gil_scoped_release free;
                self.bound.step();
            },
            "Read x, replace h and c.");
}
