// Results that are written past the caches, where they are too large to be found there again.

#pragma once

#include "registers.h"

#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t kLine = 64;          // bytes of a line of the cache
constexpr int64_t kBuffer = 4 * 1024;  // bytes that are put together in the first cache
constexpr int64_t kAhead = 16 * 1024;  // bytes by which reading is ahead

// Whether so many bytes will not be found in a cache anyway, and the processor writes past it (`stream`).
inline bool is_streamed(int64_t bytes) { return kRegister > 16 && bytes >= 12 << 20; }

// A result that grows from its beginning on: put together in a buffer, and written in whole lines.
class Streamed {
 public:
  explicit Streamed(char* to) : skipped(reinterpret_cast<uintptr_t>(to) % kLine), filled(skipped), line(to - skipped) {}

  // What is left was not a whole line; other threads see all lines before what they are told next.
  ~Streamed() {
    std::memcpy(line + skipped, buffer + skipped, filled - skipped);
    finish_streams();
  }

  // Where the next bytes are put, at most `kBuffer`.
  char* room() { return buffer + filled; }

  // So many have been put there; from `ahead` on, as many are fetched.
  void add(int64_t bytes, const char* ahead) {
    filled += bytes;
    const int64_t whole = filled / kLine * kLine;
    int64_t at = 0;
    if (skipped && whole) {  // the line's beginning belongs to others
      std::memcpy(line + skipped, buffer + skipped, kLine - skipped);
      skipped = 0;
      at = kLine;
    }
    for (; at < whole; at += kRegister) {
      __builtin_prefetch(ahead + at);
      stream(line + at, load<Block>(buffer + at));
    }
    std::memcpy(buffer, buffer + whole, kLine);
    line += whole;
    filled -= whole;
  }

 private:
  int64_t skipped, filled;
  char* line;
  alignas(kLine) char buffer[kBuffer + 2 * kLine];
};

}  // namespace
