// The engine of this machine, memory, and a call's division among threads. What bindings.cpp calls.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine.hpp"

namespace recurra {

struct RecipeError : std::invalid_argument {  // recurra.errors.RecipeError in Python
    using std::invalid_argument::invalid_argument;
};

template <class F>
const Engine<F>& engine();  // the best that this processor runs and RECURRA_ISA allows; throws RecipeError for another

Kind kind_of(const std::string& name);  // throws std::invalid_argument

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

// Memory for what a training run saves, and for packed weights: blocks that were given back serve again, so that not
// every step of a training has the system clear new pages (a seventh of the time where they are many). At most 512 MB
// wait unused.
class ReusedMemory {
  public:
    static void* take(size_t bytes);  // aligned to 64 bytes
    static void give_back(void* memory);
    static void release();  // to the system: what waits unused
};

// What a layer is, its weights apart. outputs: hidden, or the projection's width.
struct Shape {
    Kind kind;
    long inputs, hidden, outputs;
    bool projected, peephole, norm;
};

// One layer's weights, packed for this machine.
template <class F>
class Packed {
  public:
    struct Uses {
        bool forward, backward, to_x;  // to_x: the gradient of the input too
    };
    Packed(const Shape& shape, const Weights<F>& weights, Uses uses);
    const Layer<F>& layer() const { return layer_; }

  private:
    struct GiveBack {
        void operator()(void* memory) const { ReusedMemory::give_back(memory); }
    };
    Layer<F> layer_;
    std::unique_ptr<void, GiveBack> memory_;
};

// How the rows of a call are divided. Many rows: parts of rows, shared out among the threads. Few rows or large
// weights: one part, whose units the threads share. The same arguments always give the same division.
class Schedule {
  public:
    // lengths [rows], or null: all have `steps`.
    Schedule(const Shape& shape, long width_of_vectors, long size_of_number, long rows, long steps,
             const int64_t* lengths, int threads);
    Schedule(const Schedule&) = delete;
    Schedule& operator=(const Schedule&) = delete;
    const std::vector<Plan>& parts() const { return parts_; }
    long frames() const { return frames_; }
    int threads() const { return threads_; }
    bool one_team() const { return one_team_; }

  private:
    std::vector<Plan> parts_;
    std::vector<int64_t> memory_;
    long frames_ = 0;
    int threads_ = 1;
    bool one_team_ = false;
};

// Numbers that a training run keeps for its backward pass; `every` as in Forward.
template <class F>
long saved_size(const Shape& shape, const Schedule& schedule, long rows, long steps, long every);

// `run.saved` is the whole call's memory of saved_size() numbers. No result of `forward` depends on the threads; the
// weights' gradients of `backward`, which are added to, depend on their number only.
template <class F>
void forward(const Layer<F>& layer, const Schedule& schedule, Forward<F> run);
template <class F>
void backward(const Layer<F>& layer, const Schedule& schedule, Backward<F> run, const Gradients<F>& gradients);

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

void attend(const Attend<float>& query);
void log_softmax(const float* x, long rows, long size, float* y);

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
