// The shift of maps in rows: each plane is one move of memory, its borders cleared.

#pragma once

#include "shift_moves.h"

#include <array>
#include <cstdlib>
#include <map>

namespace {

constexpr int64_t kSmall = 4096;  // bytes of a plane up to which masks of whole planes stay in the cache

typedef uint64_t Half __attribute__((vector_size(32)));  // of planes, which begin anywhere in a line of the cache
constexpr int64_t kHalf = sizeof(Half);

// What a call needs beside the map, made once for maps of a kind: to make it takes longer than to move a small map.
struct Planes {
  std::vector<int32_t> taps;         // of each channel
  std::vector<int64_t> down, right;  // of each tap
  std::vector<Block> masks;          // of a plane for each tap, where planes are small
  int64_t each = 0;                  // bytes of a mask, in whole halves
};

void add_masks(Planes& planes, const Size& s, int64_t item) {
  std::vector<char> masks;
  planes.each = (s.height * s.width * item + kHalf - 1) / kHalf * kHalf;
  for (size_t t = 0; t < planes.down.size(); ++t) {
    masks.resize(t * planes.each);
    for (int64_t i = 0; i < s.height * s.width; ++i) {
      const int64_t y = i / s.width + planes.down[t], x = i % s.width + planes.right[t];
      masks.insert(masks.end(), item, y >= 0 && y < s.height && x >= 0 && x < s.width ? -1 : 0);
    }
  }
  masks.resize(planes.down.size() * planes.each);
  append(planes.masks, masks);
}

const Planes& planes_of(const Size& s, const Moves& m, int64_t item) {
  using Key = std::array<int64_t, 9>;
  static thread_local std::map<Key, Planes> known;
  const Key key{s.channels, s.height, s.width, m.kernel_size, m.dilation, m.stride, m.sign, m.interleaved, item};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  if (known.size() >= 256) known.clear();  // a bound on the memory of a program that meets maps of many sizes
  Planes& planes = known[key];
  for (int64_t c = 0; c < s.channels; ++c) planes.taps.push_back(m.tap(c, s.channels));
  for (int64_t t = 0; t < m.taps(); ++t) {
    planes.down.push_back(m.distance(t / m.kernel_size));
    planes.right.push_back(m.distance(t % m.kernel_size));
  }
  if (s.height * s.width * item <= kSmall) add_masks(planes, s, item);
  return planes;
}

// A plane as one move of memory; then zeros where that has read another row or another plane.
template <typename T>
void move_plane(const T* x, T* out, const Size& s, int64_t dy, int64_t dx) {
  const int64_t all = s.height * s.width, step = dy * s.width + dx;
  if (std::abs(dy) >= s.height || std::abs(dx) >= s.width) {
    std::memset(out, 0, all * sizeof(T));
    return;
  }
  const int64_t first = std::max<int64_t>(0, -step), last = std::min(all, all - step);
  if (first < last) std::memcpy(out + first, x + first + step, (last - first) * sizeof(T));
  std::memset(out + (dy < 0 ? 0 : (s.height - dy) * s.width), 0, std::abs(dy) * s.width * sizeof(T));
  const int64_t left = dx < 0 ? 0 : s.width - dx;
  for (int64_t j = left; j < left + std::abs(dx); ++j)
    for (int64_t i = j; i < all; i += s.width) out[i] = 0;
}

template <typename T>
void move_strided_plane(const T* x, T* out, const Size& s, int64_t stride, int64_t dy, int64_t dx) {
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t j = 0; j < s.columns; ++j) {
      const int64_t h = i * stride + dy, w = j * stride + dx;
      *out++ = h >= 0 && h < s.height && w >= 0 && w < s.width ? x[h * s.width + w] : 0;
    }
  }
}

inline void move_masked(const char* from, const char* mask, char* to, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kHalf) store<Half>(to + i, load<Half>(from + i) & load<Half>(mask + i));
}

// The planes from `begin` to `end` of `planes` in all.
template <typename T>
void shift_planes(const char* x, char* out, const Planes& table, const Size s, const Moves m, int64_t planes, int64_t begin, int64_t end) {
  // Copies: what is written may, for all that the compiler knows, be the table.
  const bool masked = m.stride == 1 && !table.masks.empty();
  const int64_t bytes = s.height * s.width * sizeof(T), out_bytes = s.rows * s.columns * sizeof(T);
  const int64_t each = table.each, width = s.width, channels = s.channels;
  const int32_t* const taps = table.taps.data();
  const int64_t *const down = table.down.data(), *const right = table.right.data();
  const char* const masks = reinterpret_cast<const char*>(table.masks.data());
  int64_t c = begin % channels;
  for (int64_t p = begin; p < end; ++p, c = c + 1 < channels ? c + 1 : 0) {
    const int64_t t = taps[c], dy = down[t], dx = right[t];
    const int64_t first = p * bytes + (dy * width + dx) * int64_t(sizeof(T));
    const char* const plane = x + p * bytes;
    char* const to = out + p * out_bytes;
    if (m.stride > 1) {
      move_strided_plane(reinterpret_cast<const T*>(plane), reinterpret_cast<T*>(to), s, m.stride, dy, dx);
    } else if (masked && first >= 0 && first + each <= planes * bytes && p * bytes + each <= end * bytes) {
      move_masked(x + first, masks + t * each, to, each);  // its last half reaches into the plane that comes next
    } else {
      move_plane(reinterpret_cast<const T*>(plane), reinterpret_cast<T*>(to), s, dy, dx);
    }
  }
}

}  // namespace
