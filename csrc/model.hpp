// The engine of this machine, memory and threads. What bindings.cpp calls.
#pragma once
#include <cstdint>
#include <vector>

#include "engine.hpp"

namespace recurra {

template <class F>
const Engine<F>& engine();  // the best that this processor runs

// Memory aligned to 64 bytes.
template <class F>
class Buffer {
  public:
    explicit Buffer(long n = 0) { grow(n); }
    Buffer(Buffer&& other) noexcept : memory_(other.memory_), size_(other.size_) {
        other.memory_ = nullptr;
        other.size_ = 0;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();
    void grow(long n);  // forgets what it held where it must grow
    F* data() const { return memory_; }

  private:
    F* memory_ = nullptr;
    long size_ = 0;
};

// One layer's weights, packed for this machine.
template <class F>
class Packed {
  public:
    Packed(Kind kind, long inputs, long hidden, const Weights<F>& weights, bool transposed);
    const Layer<F>& layer() const { return layer_; }

  private:
    Layer<F> layer_;
    Buffer<F> memory_;
};

// Numbers that a training run keeps for its backward pass.
template <class F>
long saved_size(Kind kind, long rows, long steps, long hidden);

// Over the rows, on up to `threads` threads. `work` is theirs to fill. Rows are independent, so no result of `forward`
// depends on threads; the weight gradients of `backward` are summed thread by thread, in order.
template <class F>
void forward(const Layer<F>& layer, Forward<F> run, int threads);
template <class F>
void backward(const Layer<F>& layer, Backward<F> run, int threads);

// The runtime's stack of layers: float32, weights packed once, one thread.
class Stack {
  public:
    explicit Stack(Kind kind) : kind_(kind) {}
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    Kind kind() const { return kind_; }
    void add(long inputs, long hidden, const Weights<float>& weights);
    long depth() const { return long(layers_.size()); }
    long inputs() const { return layers_.front().layer().inputs; }
    long hidden() const { return layers_.front().layer().hidden; }
    bool has_cell() const { return kind_ == Kind::lstm; }
    // x [rows, steps, inputs], h c hn cn [depth, rows, hidden], y [rows, steps, hidden]; c and cn for lstm
    void run(const float* x, long rows, long steps, const int64_t* lengths, const float* h, const float* c, float* y,
             float* hn, float* cn) const;

  private:
    Kind kind_;
    std::vector<Packed<float>> layers_;
};

class LinearMap {
  public:
    LinearMap(const float* weight, const float* bias, long outputs, long inputs);
    LinearMap(const LinearMap&) = delete;
    LinearMap& operator=(const LinearMap&) = delete;
    long inputs() const { return inputs_; }
    long outputs() const { return outputs_; }
    void run(const float* x, long rows, float* y) const;  // x [rows, inputs], y [rows, outputs]

  private:
    long outputs_, inputs_;
    Buffer<float> weight_, bias_;
};

}  // namespace recurra
