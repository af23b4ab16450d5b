// What the kernels of the shift operation (`shift_cpu.cpp`) share: sizes, who moves where, and vectors.

#pragma once

#include "registers.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

typedef uint64_t Narrow __attribute__((vector_size(16)));

// Of each bit: that of `a` where the mask has one, else that of `b`.
template <typename T>
inline T select(T mask, T a, T b) {
  return (a & mask) | (b & ~mask);
}

struct Size {
  int64_t channels, height, width, rows, columns;
};

struct Moves {
  int64_t kernel_size, dilation, stride, sign;
  bool interleaved;

  int64_t taps() const { return kernel_size * kernel_size; }

  // The tap that a channel reads.
  int64_t tap(int64_t channel, int64_t channels) const {
    const int64_t group = channels / taps();
    const int64_t own = channel >= group * taps() ? taps() / 2 : interleaved ? channel % taps() : channel / group;
    return sign < 0 ? taps() - 1 - own : own;
  }

  int64_t distance(int64_t step) const { return dilation * (step - kernel_size / 2); }

  int64_t reach() const { return kernel_size / 2 * dilation; }
};

// A vector's values begin at a line of the cache: loads that cross one are slow.
inline void append(std::vector<Block>& masks, const std::vector<char>& bytes) {
  const size_t first = masks.size();
  masks.resize(first + (bytes.size() + kRegister - 1) / kRegister);
  std::memcpy(masks.data() + first, bytes.data(), bytes.size());
}

// Zeros to read where a tap leads outside of the map.
inline const char* zeros(int64_t bytes) {
  static thread_local std::vector<Block> blocks;
  if (int64_t(blocks.size()) * kRegister < bytes) blocks.resize(bytes / kRegister + 1);
  return reinterpret_cast<const char*>(blocks.data());
}

}  // namespace
