// The door to the kernels for training. Memory comes as addresses of contiguous arrays (0: none): a call has some
// thirty of them, and arrays would cost more than a short sequence. src/recurra/kernels/cpu.py is the only caller, and
// answers for the shapes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "model.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

// One layer and direction over one batch: its shape, and how the work is divided; the same for forward and backward.
struct Call {
    recurra::Shape shape;
    bool is_double;
    long rows, steps;
    recurra::Schedule schedule;
    // What forward and backward are both told.
    std::vector<int64_t> frames_first;  // packed: the first frame of each time
    long frames_step = 0, frames_row = 0;
    bool reverse = false;
    recurra::Zoneout zone{};
    long every = 0;
};

template <class F>
F* at(Address address) {
    return reinterpret_cast<F*>(address);
}

template <class F>
recurra::Forward<F> run_of(const Call& call, Address x, Address reset, Address h0, Address c0, Address y, Address cells,
                           Address h_mask, Address saved) {
    recurra::Forward<F> f{};
    f.steps = call.steps;
    f.frames = {call.frames_first.empty() ? nullptr : call.frames_first.data(), call.frames_step, call.frames_row};
    f.reverse = call.reverse;
    f.x = at<const F>(x), f.reset = at<const uint8_t>(reset), f.h0 = at<const F>(h0), f.c0 = at<const F>(c0);
    f.y = at<F>(y), f.cells = at<F>(cells), f.h_mask = at<const F>(h_mask);
    f.zone = call.zone, f.every = call.every, f.saved = at<F>(saved);
    return f;
}

template <class F>
void forward(const Call& call, Address x, Address reset, Address h0, Address c0, Address y, Address cells, Address hn,
             Address cn, Address h_mask, Address saved, Address ih, Address hh, Address bias_ih, Address bias_hh,
             Address hr, Address peephole, Address gain_ih, Address gain_hh, Address gain_c, Address bias_c) {
    recurra::Forward<F> f = run_of<F>(call, x, reset, h0, c0, y, cells, h_mask, saved);
    f.hn = at<F>(hn), f.cn = at<F>(cn);
    const recurra::Weights<F> w{at<const F>(ih),     at<const F>(hh),       at<const F>(bias_ih), at<const F>(bias_hh),
                                at<const F>(hr),     at<const F>(peephole), at<const F>(gain_ih), at<const F>(gain_hh),
                                at<const F>(gain_c), at<const F>(bias_c)};
    const recurra::Packed<F> packed(call.shape, w, {true, false, false});
    recurra::forward(packed.layer(), call.schedule, f);
}

template <class F>
void backward(const Call& call, Address x, Address reset, Address h0, Address c0, Address y, Address h_mask,
              Address saved, Address ih, Address hh, Address bias_ih, Address bias_hh, Address hr, Address peephole,
              Address gain_ih, Address gain_hh, Address gain_c, Address bias_c, Address dy, Address dcells, Address dhn,
              Address dcn, Address dx, Address dh0, Address dc0, Address dih, Address dhh, Address dbias_ih,
              Address dbias_hh, Address dhr, Address dpeephole, Address dgain_ih, Address dgain_hh, Address dgain_c,
              Address dbias_c) {
    recurra::Backward<F> b{};
    b.run = run_of<F>(call, x, reset, h0, c0, y, 0, h_mask, saved);
    b.dy = at<const F>(dy), b.dcells = at<const F>(dcells), b.dhn = at<const F>(dhn), b.dcn = at<const F>(dcn);
    b.dx = at<F>(dx), b.dh0 = at<F>(dh0), b.dc0 = at<F>(dc0);
    const recurra::Weights<F> w{at<const F>(ih),     at<const F>(hh),       at<const F>(bias_ih), at<const F>(bias_hh),
                                at<const F>(hr),     at<const F>(peephole), at<const F>(gain_ih), at<const F>(gain_hh),
                                at<const F>(gain_c), at<const F>(bias_c)};
    const recurra::Gradients<F> g{at<F>(dih),       at<F>(dhh),      at<F>(dbias_ih), at<F>(dbias_hh), at<F>(dhr),
                                  at<F>(dpeephole), at<F>(dgain_ih), at<F>(dgain_hh), at<F>(dgain_c),  at<F>(dbias_c)};
    const recurra::Packed<F> packed(call.shape, w, {call.every > 0, true, dx != 0});
    recurra::backward(packed.layer(), call.schedule, b, g);
}

}  // namespace

void bind_kernel(nb::module_& m) {
    nb::class_<Call>(m, "Call", "One layer and direction over one batch. Memory is passed as addresses; 0: none.")
        .def(
            "__init__",
            [](Call* self, const std::string& cell, long inputs, long hidden, long outputs, bool projected,
               bool peephole, bool norm, long rows, long steps, Address lengths, int threads, bool is_double) {
                for (long r = 0; lengths && r < rows; r++) {
                    const int64_t n = at<const int64_t>(lengths)[r];
                    if (n < 0 || n > steps)
                        throw std::invalid_argument("lengths must be between 0 and " + std::to_string(steps) +
                                                    ", not " + std::to_string(n));
                }
                const recurra::Shape s{recurra::kind_of(cell), inputs, hidden, outputs, projected, peephole, norm};
                const long width = is_double ? recurra::engine<double>().width : recurra::engine<float>().width;
                new (self) Call{
                    s, is_double, rows, steps,
                    recurra::Schedule(s, width, is_double ? 8 : 4, rows, steps, at<const int64_t>(lengths), threads)};
            },
            "cell"_a, "inputs"_a, "hidden"_a, "outputs"_a, "projected"_a, "peephole"_a, "norm"_a, "rows"_a, "steps"_a,
            "lengths"_a, "threads"_a, "double"_a)
        .def(
            "batch_sizes",
            [](Call& c, Address sizes) {
                c.frames_first.assign(size_t(c.steps), 0);
                for (long t = 1; t < c.steps; t++)
                    c.frames_first[size_t(t)] = c.frames_first[size_t(t - 1)] + at<const int64_t>(sizes)[t - 1];
            },
            "sizes"_a, "x is packed: rows at each of the steps, int64.")
        .def_rw("frames_step", &Call::frames_step, "Frames from one time to the next.")
        .def_rw("frames_row", &Call::frames_row, "Frames from one row to the next.")
        .def_rw("reverse", &Call::reverse)
        .def_rw("every", &Call::every, "0: gates are saved; k: the cells before every k-th step.")
        .def(
            "zoneout",
            [](Call& c, double h, double cell, bool training, int64_t seed, uint32_t stream) {
                c.zone = {h, cell, training, uint64_t(seed), stream};
            },
            "h"_a, "c"_a, "training"_a, "seed"_a, "stream"_a)
        .def(
            "saved",
            [](const Call& c) {
                return c.is_double ? recurra::saved_size<double>(c.shape, c.schedule, c.rows, c.steps, c.every)
                                   : recurra::saved_size<float>(c.shape, c.schedule, c.rows, c.steps, c.every);
            },
            "How many numbers `forward` saves for `backward`.")
        .def(
            "forward",
            [](const Call& c, Address x, Address reset, Address h0, Address c0, Address y, Address cells, Address hn,
               Address cn, Address h_mask, Address saved, Address ih, Address hh, Address bias_ih, Address bias_hh,
               Address hr, Address peephole, Address gain_ih, Address gain_hh, Address gain_c, Address bias_c) {
                nb::gil_scoped_release free;
                (c.is_double ? forward<double> : forward<float>)(c, x, reset, h0, c0, y, cells, hn, cn, h_mask, saved,
                                                                 ih, hh, bias_ih, bias_hh, hr, peephole, gain_ih,
                                                                 gain_hh, gain_c, bias_c);
            },
            "x"_a, "reset"_a, "h0"_a, "c0"_a, "y"_a, "cells"_a, "hn"_a, "cn"_a, "h_mask"_a, "saved"_a, "weight_ih"_a,
            "weight_hh"_a, "bias_ih"_a, "bias_hh"_a, "weight_hr"_a, "peephole"_a, "gain_ih"_a, "gain_hh"_a, "gain_c"_a,
            "bias_c"_a, "Fills y, cells, hn, cn and saved; frames beyond a row's length are left alone.")
        .def(
            "backward",
            [](const Call& c, Address x, Address reset, Address h0, Address c0, Address y, Address h_mask,
               Address saved, Address ih, Address hh, Address bias_ih, Address bias_hh, Address hr, Address peephole,
               Address gain_ih, Address gain_hh, Address gain_c, Address bias_c, Address dy, Address dcells,
               Address dhn, Address dcn, Address dx, Address dh0, Address dc0, Address dih, Address dhh,
               Address dbias_ih, Address dbias_hh, Address dhr, Address dpeephole, Address dgain_ih, Address dgain_hh,
               Address dgain_c, Address dbias_c) {
                nb::gil_scoped_release free;
                (c.is_double ? backward<double> : backward<float>)(c, x, reset, h0, c0, y, h_mask, saved, ih, hh,
                                                                   bias_ih, bias_hh, hr, peephole, gain_ih, gain_hh,
                                                                   gain_c, bias_c, dy, dcells, dhn, dcn, dx, dh0, dc0,
                                                                   dih, dhh, dbias_ih, dbias_hh, dhr, dpeephole,
                                                                   dgain_ih, dgain_hh, dgain_c, dbias_c);
            },
            "x"_a, "reset"_a, "h0"_a, "c0"_a, "y"_a, "h_mask"_a, "saved"_a, "weight_ih"_a, "weight_hh"_a, "bias_ih"_a,
            "bias_hh"_a, "weight_hr"_a, "peephole"_a, "gain_ih"_a, "gain_hh"_a, "gain_c"_a, "bias_c"_a, "dy"_a,
            "dcells"_a, "dhn"_a, "dcn"_a, "dx"_a, "dh0"_a, "dc0"_a, "dweight_ih"_a, "dweight_hh"_a, "dbias_ih"_a,
            "dbias_hh"_a, "dweight_hr"_a, "dpeephole"_a, "dgain_ih"_a, "dgain_hh"_a, "dgain_c"_a, "dbias_c"_a,
            "Gradients of `forward`: fills dx, dh0, dc0; ADDS to those of the weights.");
    m.def(
        "saved_memory",
        [](size_t numbers, bool is_double) {
            void* memory = recurra::ReusedMemory::take(std::max<size_t>(numbers, 1) * (is_double ? 8 : 4));
            nb::capsule owner(memory, [](void* p) noexcept { recurra::ReusedMemory::give_back(p); });
            const nb::dlpack::dtype type = is_double ? nb::dtype<double>() : nb::dtype<float>();
            return nb::ndarray<nb::pytorch>(memory, {numbers}, owner, {1}, type);
        },
        "numbers"_a, "double"_a, "A torch tensor for `saved`, on memory that is used again.");
    m.def(
        "release_saved_memory", [] { recurra::ReusedMemory::release(); },
        "Give the system back what saved_memory holds for the next training step.");
    m.def(
        "mask_apply",
        [](Address x, Address y, long steps, long rows, long units, double p, int64_t seed, uint32_t stream,
           bool is_double) {
            nb::gil_scoped_release free;
            if (is_double)
                recurra::engine<double>().mask(at<const double>(x), at<double>(y), steps, rows, units, p,
                                               uint64_t(seed), stream);
            else
                recurra::engine<float>().mask(at<const float>(x), at<float>(y), steps, rows, units, p, uint64_t(seed),
                                              stream);
        },
        "x"_a, "y"_a, "steps"_a, "rows"_a, "units"_a, "p"_a, "seed"_a, "stream"_a, "double"_a,
        "y = x / (1 - p) where kernels/masks.py's mask of [steps, rows, units] keeps it, else 0.");
    m.def(
        "use_host_pool",
        [](Address parallel, Address id, Address size) {
            recurra::HostPool pool;
            pool.parallel = reinterpret_cast<decltype(pool.parallel)>(parallel);
            pool.id = reinterpret_cast<decltype(pool.id)>(id);
            pool.size = reinterpret_cast<decltype(pool.size)>(size);
            recurra::use_host_pool(pool);
        },
        "parallel"_a, "id"_a, "size"_a,
        "Work on the threads of GCC's OpenMP: addresses of GOMP_parallel, omp_get_thread_num, omp_get_num_threads.");
}
