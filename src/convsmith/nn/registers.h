// What all kernels in C++ share: how wide a register is, how values are read and written, and what is worth a thread.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int64_t kRegister = 64;
#elif defined(__AVX2__)
constexpr int64_t kRegister = 32;
#else
constexpr int64_t kRegister = 16;
#endif

// A register of bytes: the compiler's own vectors, which it has on every processor.
typedef uint64_t Block __attribute__((vector_size(kRegister)));

constexpr int64_t kGrain = 32 * 1024;  // bytes that are worth a thread

template <typename T>
inline T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
inline void store(char* to, const T& value) {
  std::memcpy(to, &value, sizeof(T));
}

// Past the caches, to a line's beginning: the line is not read first, as it is where a part of it could stay as it was.
template <typename T>
inline void stream(char* to, const T& value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), __m512i(value));
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 32) return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), __m256i(value));
#endif
  store(to, value);
}

// What has been streamed is seen by other threads before what these are told next.
inline void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace
