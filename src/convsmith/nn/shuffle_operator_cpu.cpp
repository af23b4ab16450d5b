// Channel shuffle (`shuffle.py`) as an operator of torch on the CPU, and its derivative.
//
// What a call asks of its map is asked here, where a question takes a hundredth of the time that it takes in Python.

#include "shuffle_cpu.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/channel_shuffle.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

using at::Tensor;
using c10::DispatchKey;
using c10::DispatchKeySet;
using convsmith::Shuffle;

namespace {

c10::MemoryFormat format_of(const Tensor& x) {
  const bool last = !x.is_contiguous() && x.is_contiguous(c10::MemoryFormat::ChannelsLast);
  return last ? c10::MemoryFormat::ChannelsLast : c10::MemoryFormat::Contiguous;
}

// The values: of a channels-last map channels-last, of any other in rows.
Tensor shuffle(const Tensor& given, int64_t groups) {
  const bool divides = given.dim() == 4 && groups > 0 && given.size(1) % groups == 0;
  if (!divides) return at::channel_shuffle(given, groups);  // its errors
  const c10::MemoryFormat format = format_of(given);
  const Tensor x = given.contiguous(format);
  Tensor out = at::detail::empty_cpu(x.sizes(), x.scalar_type(), false, format);
  if (x.numel() == 0) return out;
  const Shuffle s{
      .from = static_cast<const char*>(x.const_data_ptr()),
      .to = static_cast<char*>(out.mutable_data_ptr()),
      .batch = x.size(0),
      .rows = groups,
      .columns = x.size(1) / groups,
      .area = x.size(2) * x.size(3),
      .item = int64_t(x.element_size()),
  };
  s.area > 1 && format == c10::MemoryFormat::Contiguous ? convsmith::shuffle_rows(s) : convsmith::shuffle_channels_last(s);
  return out;
}

Tensor call(const Tensor& x, int64_t groups) {
  static const auto operation =
      c10::Dispatcher::singleton().findSchemaOrThrow("convsmith::channel_shuffle", "").typed<Tensor(const Tensor&, int64_t)>();
  return operation.call(x, groups);
}

// Whether this is a dense map on the CPU, not what stands for one: a batch of vmap, a conjugate, a map with a tangent.
bool is_plain(const Tensor& x) {
  static const uint64_t known =
      DispatchKeySet({DispatchKey::CPU, DispatchKey::AutogradCPU, DispatchKey::ADInplaceOrView, DispatchKey::AutocastCPU}).raw_repr();
  return (x.key_set().raw_repr() & ~known) == 0 && !x._fw_grad(0).defined();
}

// The derivative: the gradient is shuffled back, with rows and columns exchanged.
struct Shuffled : torch::autograd::Function<Shuffled> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, int64_t groups) {
    context->saved_data["groups"] = groups;
    context->saved_data["format"] = int64_t(format_of(x));
    const at::AutoDispatchBelowADInplaceOrView below;
    return call(x, groups);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients) {
    const Tensor& gradient = gradients[0];
    const int64_t groups = context->saved_data["groups"].toInt();
    if (!is_plain(gradient)) return {at::channel_shuffle_symint(gradient, gradient.sym_size(1) / groups), Tensor()};
    const auto format = c10::MemoryFormat(context->saved_data["format"].toInt());
    return {call(gradient.contiguous(format), gradient.size(1) / groups), Tensor()};
  }
};

Tensor shuffle_differentiably(const Tensor& x, int64_t groups) {
  if (!is_plain(x)) return at::channel_shuffle(x, groups);
  if (x.requires_grad() && at::GradMode::is_enabled()) return Shuffled::apply(x, groups);
  const at::AutoDispatchBelowADInplaceOrView below;
  return call(x, groups);
}

}  // namespace

TORCH_LIBRARY_IMPL(convsmith, CPU, library) { library.impl("channel_shuffle", &shuffle); }

TORCH_LIBRARY_IMPL(convsmith, AutogradCPU, library) { library.impl("channel_shuffle", &shuffle_differentiably); }

// Left to torch: quantized maps, and batches of the older vmap, by which `torch.autograd.grad` runs batches of gradients.
TORCH_LIBRARY_IMPL(convsmith, QuantizedCPU, library) { library.impl("channel_shuffle", &at::channel_shuffle); }

TORCH_LIBRARY_IMPL(convsmith, Batched, library) { library.impl("channel_shuffle", &at::channel_shuffle); }
