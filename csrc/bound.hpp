// A stack of layers bound to its streams: weights packed once, x and the state in the caller's arrays, a step allocates
// nothing.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

#include "step.hpp"

namespace recurra {

class Bound {
  public:
    // x [rows, inputs], h and c [depth, rows, hidden]; c for lstm, null for the others. They must outlive this.
    Bound(Kind kind, Format format, long rows, long inputs, long hidden, const float* x, float* h, float* c);
    Bound(const Bound&) = delete;
    Bound& operator=(const Bound&) = delete;
    Kind kind() const { return kind_; }
    long hidden() const { return hidden_; }
    long inputs() const { return layers_.empty() ? inputs_ : hidden_; }  // of the next layer
    long depth() const { return long(layers_.size()); }
    double work() const { return work_; }  // multiply-adds of a step
    void add(const Weights<float>& weights);
    void step();

  private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    using Memory = std::unique_ptr<std::byte, Free>;
    static Memory allocate(long bytes);  // aligned to 64 bytes

    Kind kind_;
    Format format_;
    const Stepper* stepper_;
    long rows_, inputs_, hidden_;
    const float* x_;
    float *h_, *c_;
    double work_ = 0;
    std::vector<StepLayer> layers_;
    std::vector<Memory> memory_;
    StepRows scratch_{};
};

}  // namespace recurra
