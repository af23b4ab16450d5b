// Channel shuffle of channels-last maps: each pixel is a small matrix that is transposed.
//
// Each block of the result draws its values from a few windows of the pixel, as wide as a register, one permutation of
// two registers for every window after the first. Which value comes from where is worked out once for a shape, and so
// any number of groups is served in the same way. For 2, 4, 8 or 16 rows, or columns, fewer permutations do: as cards
// are shuffled, half into half, once for each factor of two.

#pragma once

#include "registers.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace {

// Whether the processor permutes two registers of such items by indices in a few instructions.
template <typename T>
constexpr bool permutes() {
#if defined(__AVX512VBMI__)
  return true;
#elif defined(__AVX512BW__)
  return sizeof(T) >= 2;
#elif defined(__AVX2__)
  return sizeof(T) >= 4;
#elif defined(__ARM_NEON)
  return true;
#else
  return false;
#endif
}

template <typename T, int64_t kBytes = kRegister>
struct Lanes {
  typedef T Vector __attribute__((vector_size(kBytes)));
  static constexpr int64_t count = kBytes / sizeof(T);
};

// How a pixel is put together, block by block; the last block ends with the pixel.
template <typename T>
struct Order {
  std::vector<int32_t> windows;                       // of each block
  std::vector<int32_t> starts;                        // of each window
  std::vector<typename Lanes<T>::Vector> permutations;  // for each window but the first of several
};

template <typename T>
void add_block(Order<T>& order, const std::array<int64_t, kRegister>& sources, int64_t channels) {
  constexpr int64_t lanes = Lanes<T>::count;
  std::array<int64_t, kRegister> sorted = sources;
  std::sort(sorted.begin(), sorted.begin() + lanes);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < lanes; ++i) {  // a window that is a line of the cache is read in less time than others
    const int64_t start = std::min(sorted[i] / lanes * lanes, channels - lanes);
    if (starts.empty() || start > starts.back()) starts.push_back(start);
  }
  std::array<T, lanes> places{};
  // A lane's value: at first where it lies in the first window, once it is permuted in its own lane.
  const auto permute = [&](size_t w, bool first) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t own = std::upper_bound(starts.begin(), starts.end(), sources[lane]) - starts.begin() - 1;
      const int64_t place = sources[lane] - starts[own];
      places[lane] = T(own == int64_t(w) ? lanes + place : first && own == 0 ? place : lane);
    }
    order.permutations.push_back(load<typename Lanes<T>::Vector>(places.data()));
  };
  order.windows.push_back(starts.size());
  for (const int64_t start : starts) order.starts.push_back(start);
  if (starts.size() == 1) permute(0, true);
  for (size_t w = 1; w < starts.size(); ++w) permute(w, w == 1);
}

template <typename T>
const Order<T>& order_of(int64_t rows, int64_t columns) {
  static thread_local std::map<std::array<int64_t, 2>, Order<T>> known;
  const auto found = known.find({rows, columns});
  if (found != known.end()) return found->second;
  if (known.size() >= 256) known.clear();  // a bound on the memory of a program that meets many shapes
  Order<T>& order = known[{rows, columns}];
  const int64_t channels = rows * columns, lanes = Lanes<T>::count;
  for (int64_t c = 0; c < channels; c += lanes) {
    std::array<int64_t, kRegister> sources;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t to = std::min(c, channels - lanes) + lane;
      sources[lane] = to % rows * columns + to / rows;
    }
    add_block<T>(order, sources, channels);
  }
  return order;
}

// kPixels neighbouring pixels.
template <typename T, int kPixels>
void permute_pixels(const T* x, T* out, const Order<T>& order, int64_t channels) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int64_t lanes = Lanes<T>::count;
  const int32_t* start = order.starts.data();
  const Vector* places = order.permutations.data();
  const int32_t* windows = order.windows.data();
  for (int64_t c = 0; c < channels; c += lanes) {
    const int64_t at = std::min(c, channels - lanes);
    for (int p = kPixels; kPixels > 1 && p < 2 * kPixels; ++p) {  // the processor does not foresee so many streams
      __builtin_prefetch(x + p * channels + at);
      __builtin_prefetch(out + p * channels + at, 1);
    }
    Vector made[kPixels];
    const T* from = x + *start++;
    for (int p = 0; p < kPixels; ++p) made[p] = load<Vector>(from + p * channels);
    const int count = *windows++;
    if (count == 1) {
      const Vector own = *places++;
      for (int p = 0; p < kPixels; ++p) made[p] = __builtin_shuffle(made[p], made[p], own);
    }
    for (int w = 1; w < count; ++w) {
      from = x + *start++;
      const Vector own = *places++;
      for (int p = 0; p < kPixels; ++p) made[p] = __builtin_shuffle(made[p], load<Vector>(from + p * channels), own);
    }
    for (int p = 0; p < kPixels; ++p) std::memcpy(out + p * channels + at, &made[p], kRegister);
  }
}

// kRows rows, as many values of each as a register holds: their columns one after the other; or back, columns to rows.
template <typename T, int64_t kBytes, int kRows, bool kBack>
void riffle(const T* x, T* out, int64_t columns) {
  using Vector = typename Lanes<T, kBytes>::Vector;
  constexpr int64_t lanes = Lanes<T, kBytes>::count;
  Vector low, high;  // of two registers, alternately; or those in even and in odd places
  for (int64_t i = 0; i < lanes; ++i) low[i] = T(kBack ? 2 * i : i % 2 * lanes + i / 2);
  for (int64_t i = 0; i < lanes; ++i) high[i] = low[i] + T(kBack ? 1 : lanes / 2);
  for (int64_t c = 0; c < columns; c += lanes) {
    const int64_t at = std::min(c, columns - lanes);  // the last tile may overlap
    Vector rows[kRows], made[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) rows[r] = load<Vector>(kBack ? x + at * kRows + r * lanes : x + r * columns + at);
#pragma GCC unroll 4
    for (int factor = 1; factor < kRows; factor *= 2) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows / 2; ++r) {
        const Vector a = rows[kBack ? 2 * r : r], b = rows[kBack ? 2 * r + 1 : r + kRows / 2];
        made[kBack ? r : 2 * r] = __builtin_shuffle(a, b, low);
        made[kBack ? r + kRows / 2 : 2 * r + 1] = __builtin_shuffle(a, b, high);
      }
      std::copy(made, made + kRows, rows);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      T* const to = kBack ? out + r * columns + at : out + at * kRows + r * lanes;
      std::memcpy(to, &rows[r], kBytes);
    }
  }
}

template <typename T>
using Riffle = void (*)(const T*, T*, int64_t);

template <typename T, int64_t kBytes, bool kBack>
Riffle<T> riffling(int64_t rows) {
  switch (rows) {
    case 2: return &riffle<T, kBytes, 2, kBack>;
    case 4: return &riffle<T, kBytes, 4, kBack>;
    case 8: return &riffle<T, kBytes, 8, kBack>;
    case 16: return &riffle<T, kBytes, 16, kBack>;
    default: return nullptr;
  }
}

// Where the rows, or the columns, are so few and the other side fills a register, or half of one.
template <typename T>
Riffle<T> riffling(int64_t rows, int64_t columns) {
  const int64_t few = std::min(rows, columns), many = std::max(rows, columns);
  if (many >= Lanes<T>::count) return columns < rows ? riffling<T, kRegister, true>(few) : riffling<T, kRegister, false>(few);
  if (2 * many < Lanes<T>::count) return nullptr;
  return columns < rows ? riffling<T, kRegister / 2, true>(few) : riffling<T, kRegister / 2, false>(few);
}

// out[i * rows + j] = x[j * columns + i] of each pixel.
template <typename T>
void transpose_pixels(const T* x, T* out, int64_t pixels, int64_t rows, int64_t columns) {
  const int64_t channels = rows * columns;
  if constexpr (permutes<T>()) {
    if (const auto run = riffling<T>(rows, columns)) {
      for (int64_t p = 0; p < pixels; ++p) run(x + p * channels, out + p * channels, std::max(rows, columns));
      return;
    }
    if (channels >= Lanes<T>::count) {
      constexpr int64_t kTogether = 4;
      const Order<T>& order = order_of<T>(rows, columns);
      int64_t p = 0;
      for (; p + kTogether <= pixels; p += kTogether)
        permute_pixels<T, kTogether>(x + p * channels, out + p * channels, order, channels);
      for (; p < pixels; ++p) permute_pixels<T, 1>(x + p * channels, out + p * channels, order, channels);
      return;
    }
  }
  for (int64_t p = 0; p < pixels; ++p, x += channels, out += channels)
    for (int64_t i = 0; i < columns; ++i)
      for (int64_t j = 0; j < rows; ++j) out[i * rows + j] = x[j * columns + i];
}

}  // namespace
