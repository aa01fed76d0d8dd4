#include "bound.hpp"

#include <algorithm>
#include <new>
#include <string_view>

#include "model.hpp"

namespace recurra {
namespace {

// Of the engine's instruction set, so that a step gives the layer's bits. int8 has sums of its own, exact on all.
const Stepper& stepper([[maybe_unused]] Format format) {
#ifdef RECURRA_X86
    const std::string_view isa = engine<float>().name;
    if (isa == "avx512") {
        if (format != Format::int8) return avx512::stepper;
        return __builtin_cpu_supports("avx512vnni") ? avx512vnni::stepper : avx2::stepper;
    }
    if (isa == "avx2") return avx2::stepper;
#endif
    return portable::stepper;
}

}  // namespace

Bound::Memory Bound::allocate(long bytes) {
    auto* p = static_cast<std::byte*>(std::aligned_alloc(64, size_t(round_up(bytes + 1, 64))));
    if (!p) throw std::bad_alloc();
    return Memory(p);
}

Bound::Bound(Kind kind, Format format, long rows, long inputs, long hidden, const float* x, float* h, float* c)
    : kind_(kind),
      format_(format),
      stepper_(&stepper(format)),
      rows_(rows),
      inputs_(inputs),
      hidden_(hidden),
      x_(x),
      h_(h),
      c_(c) {
    const long n = std::min(rows, STEP_ROWS), bytes = round_up(hidden, 4), floats = round_up(n * hidden, 16);
    memory_.push_back(allocate(4 * floats + 2 * round_up(n * bytes, 64) + 8 * round_up(n, 16)));
    scratch_.before = reinterpret_cast<float*>(memory_.back().get());
    scratch_.xq = reinterpret_cast<uint8_t*>(scratch_.before + floats);
    scratch_.hq = scratch_.xq + round_up(n * bytes, 64);
    scratch_.x_nan = reinterpret_cast<float*>(scratch_.hq + round_up(n * bytes, 64));
    scratch_.h_nan = scratch_.x_nan + round_up(n, 16);
    std::fill(scratch_.xq, scratch_.xq + 2 * round_up(n * bytes, 64), uint8_t(128));
}

void Bound::add(const Weights<float>& weights) {
    const long W = stepper_->width, P = round_up(hidden_, W) / W, G = gates(kind_), I = inputs();
    StepLayer l{kind_, hidden_, P, stepper_->group(kind_, rows_), {}, {}, nullptr};
    auto cut = [this](long n) {
        memory_.push_back(allocate(4 * n));
        return memory_.back().get();
    };
    auto matrix = [&](Format format, long K) {
        const long vectors = P * G * W, words = round_up(K, columns(format)) / columns(format);
        const long extra = format == Format::int8 ? vectors : 0;
        return Matrix{format,
                      K,
                      words,
                      reinterpret_cast<uint32_t*>(cut(vectors * words)),
                      reinterpret_cast<int32_t*>(cut(extra)),
                      reinterpret_cast<float*>(cut(extra))};
    };
    // x may be of any size, so the first layer's weights for it stay float32 where the others are int8
    l.x = matrix(format_ == Format::int8 && depth() == 0 ? Format::float32 : format_, I);
    l.h = matrix(format_, hidden_);
    l.bias = reinterpret_cast<float*>(cut(P * slots(kind_) * W));
    stepper_->pack(l, weights);
    layers_.push_back(l);
    work_ += double(rows_) * double(G * hidden_) * double(I + hidden_);
}

void Bound::step() {
    scratch_.backward = !scratch_.backward;
    for (long first = 0; first < rows_; first += STEP_ROWS) {
        StepRows s = scratch_;
        s.rows = std::min(STEP_ROWS, rows_ - first);
        s.x = x_ + first * inputs_;
        for (long i = 0; i < depth(); i++) {
            const long at = (i * rows_ + first) * hidden_;
            s.h = h_ + at;
            s.c = c_ ? c_ + at : nullptr;
            stepper_->step(layers_[size_t(i)], s);
            s.x = s.h;
        }
    }
}

}  // namespace recurra
