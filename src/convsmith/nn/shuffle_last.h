// Channel shuffle of channels-last maps: each pixel is a small matrix that is transposed.
//
// Few rows, or columns, are riffled as cards are, so many heaps into one, once for each prime factor of their number: in
// registers, one permutation of two for every heap after the first. Of other counts, each block of the result draws its
// values from a few windows of the pixel, one permutation for every window after the first; which value comes from where
// is worked out once for a shape, and so any number of groups is served.

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
  constexpr int64_t item = sizeof(T);
#if defined(__AVX512VBMI__)
  return item <= 8;
#elif defined(__AVX512BW__)
  return item >= 2 && item <= 8;
#elif defined(__AVX2__)
  return item >= 4 && item <= 8;
#elif defined(__ARM_NEON)
  return item <= 8;
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

// As many heaps are riffled at a time.
constexpr int smallest_factor(int rows) {
  int factor = 2;
  while (rows % factor) ++factor;
  return factor;
}

// For each register of the result, and each of the `kHeaps` given ones but the first: which lane of what has been put
// together so far, or of that register, each lane takes. Heaps to one, a card of each in turn; or back.
template <typename T, int kHeaps, int64_t kLanes, bool kBack>
constexpr auto places() {
  std::array<std::array<std::array<T, kLanes>, kHeaps - 1>, kHeaps> found{};
  for (int made = 0; made < kHeaps; ++made) {
    for (int given = 1; given < kHeaps; ++given) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t at = kBack ? lane * kHeaps + made : made * kLanes + lane;
        const int64_t own = kBack ? at / kLanes : at % kHeaps, place = kBack ? at % kLanes : at / kHeaps;
        found[made][given - 1][lane] = T(own == given ? kLanes + place : given == 1 && own == 0 ? place : lane);
      }
    }
  }
  return found;
}

template <typename T, int kHeaps, int64_t kBytes, bool kBack>
struct Places {
  alignas(64) static constexpr auto table = places<T, kHeaps, kBytes / int64_t(sizeof(T)), kBack>();
};

// All registers, as many times as `kLeft`, which is what is left of the number of rows, has prime factors.
template <typename T, int64_t kBytes, int kRows, int kLeft, bool kBack, typename Vector>
inline __attribute__((always_inline)) void shuffle_heaps(Vector* rows) {
  if constexpr (kLeft > 1) {
    constexpr int heaps = smallest_factor(kLeft), cards = kRows / heaps;
    const auto& table = Places<T, heaps, kBytes, kBack>::table;
    Vector made[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < cards; ++r) {
#pragma GCC unroll 16
      for (int h = 0; h < heaps; ++h) {
        Vector all = rows[kBack ? heaps * r : r];
#pragma GCC unroll 16
        for (int given = 1; given < heaps; ++given) {
          const Vector next = rows[kBack ? heaps * r + given : r + given * cards];
          all = __builtin_shuffle(all, next, load<Vector>(table[h][given - 1].data()));
        }
        made[kBack ? r + h * cards : heaps * r + h] = all;
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) rows[r] = made[r];
    shuffle_heaps<T, kBytes, kRows, kLeft / heaps, kBack>(rows);
  }
}

// Of each pixel kRows rows, as many values of each as a register holds: their columns one after the other; or back,
// columns to rows. Where there are fewer columns than that, what lies behind a pixel is read and written over.
template <typename T, int64_t kBytes, int kRows, bool kBack>
void riffle(const T* x, T* out, int64_t pixels, int64_t columns) {
  using Vector = typename Lanes<T, kBytes>::Vector;
  constexpr int64_t lanes = Lanes<T, kBytes>::count;
  const int64_t end = std::max<int64_t>(0, columns - lanes);
  for (int64_t p = 0; p < pixels; ++p, x += kRows * columns, out += kRows * columns) {
    for (int64_t c = 0; c < columns; c += lanes) {
      const int64_t at = std::min(c, end);  // the last tile may overlap
      Vector rows[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) rows[r] = load<Vector>(kBack ? x + at * kRows + r * lanes : x + r * columns + at);
      shuffle_heaps<T, kBytes, kRows, kRows, kBack>(rows);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) std::memcpy(kBack ? out + r * columns + at : out + at * kRows + r * lanes, &rows[r], kBytes);
    }
  }
}

template <typename T>
using Riffle = void (*)(const T*, T*, int64_t, int64_t);

template <typename T, int64_t kBytes, bool kBack>
Riffle<T> riffling(int64_t rows) {
  switch (rows) {
    case 2: return &riffle<T, kBytes, 2, kBack>;
    case 3: return &riffle<T, kBytes, 3, kBack>;
    case 4: return &riffle<T, kBytes, 4, kBack>;
    case 5: return &riffle<T, kBytes, 5, kBack>;
    case 6: return &riffle<T, kBytes, 6, kBack>;
    case 7: return &riffle<T, kBytes, 7, kBack>;
    case 8: return &riffle<T, kBytes, 8, kBack>;
    case 10: return &riffle<T, kBytes, 10, kBack>;
    case 12: return &riffle<T, kBytes, 12, kBack>;
    case 16: return &riffle<T, kBytes, 16, kBack>;
    default: return nullptr;
  }
}

// All pixels where the rows, or the columns, are few and the other side fills such a register; but the last where it
// fills only half of one; else none. How many are made.
template <typename T, int64_t kBytes>
int64_t riffle_pixels(const T* x, T* out, int64_t pixels, int64_t rows, int64_t columns) {
  const int64_t few = std::min(rows, columns), many = std::max(rows, columns);
  const auto run = columns < rows ? riffling<T, kBytes, true>(few) : riffling<T, kBytes, false>(few);
  if (!run || 2 * many < Lanes<T, kBytes>::count) return 0;
  const int64_t made = many < Lanes<T, kBytes>::count ? pixels - 1 : pixels;
  run(x, out, made, many);
  return made;
}

// out[i * rows + j] = x[j * columns + i] of each pixel.
template <typename T>
void transpose_pixels(const T* x, T* out, int64_t pixels, int64_t rows, int64_t columns) {
  const int64_t channels = rows * columns;
  int64_t p = 0;
  if constexpr (permutes<T>()) {
    p = riffle_pixels<T, kRegister>(x, out, pixels, rows, columns);
    if (p < pixels) p += riffle_pixels<T, kRegister / 2>(x + p * channels, out + p * channels, pixels - p, rows, columns);
    if (p == 0 && channels >= Lanes<T>::count) {
      constexpr int64_t kTogether = 4;
      const Order<T>& order = order_of<T>(rows, columns);
      for (; p + kTogether <= pixels; p += kTogether)
        permute_pixels<T, kTogether>(x + p * channels, out + p * channels, order, channels);
      for (; p < pixels; ++p) permute_pixels<T, 1>(x + p * channels, out + p * channels, order, channels);
    }
  }
  for (; p < pixels; ++p)
    for (int64_t i = 0; i < columns; ++i)
      for (int64_t j = 0; j < rows; ++j) out[p * channels + i * rows + j] = x[p * channels + j * columns + i];
}

}  // namespace
