#include "addon/arguments.h"

#include "core/copy.h"
#include "core/memory_budget.h"

namespace infini {
namespace {

// An array, a device tensor's memory, or [a host buffer's memory, byte offset, elements].
Operand read_operand(const Napi::Value& value, DType dtype, const Engine& engine) {
  Operand operand;
  const napi_valuetype type = value.Type();
  const bool in_part = type == napi_object && value.IsArray();
  if (type != napi_external && !in_part) {
    const ArrayView array = view_of(value);
    if (array.type != array_type(dtype)) throw Error(ErrorCode::Dtype, "Expected an array of the stream's dtype");
    operand.data = array.data;
    operand.elements = array.elements;
    return operand;
  }
  const Napi::Array parts = value.As<Napi::Array>();
  const MemoryHandle& handle = unwrap<MemoryHandle>(in_part ? parts.Get(0u) : value);
  if (!handle.memory) throw Error(ErrorCode::Closed, "Expected an open tensor but it is closed");
  if (&handle.device->engine != &engine) throw Error(ErrorCode::InvalidArgType, "Expected a tensor of the stream's device");
  const size_t bytes = handle.memory->bytes();
  const size_t offset = in_part ? size_t(parts.Get(1u).As<Napi::Number>().Int64Value()) : 0;
  operand.elements = in_part ? parts.Get(2u).As<Napi::Number>().Int64Value() : int64_t(bytes / element_bytes(dtype));
  if (operand.elements < 0 || offset > bytes || size_t(operand.elements) > (bytes - offset) / element_bytes(dtype)) {
    throw Error(ErrorCode::Shape, "Expected a tensor within its memory");
  }
  operand.data = static_cast<char*>(handle.memory->data()) + offset;
  operand.place = handle.memory->place();
  operand.memory = handle.memory;
  return operand;
}

void expect(const Operand& operand, int64_t elements) {
  if (operand.elements == elements) return;
  throw Error(ErrorCode::Shape, "Expected a tensor of " + std::to_string(elements) + " elements but its memory changed");
}

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

Arguments read_arguments(CallKind kind, const StreamConfig& config, const Engine& engine, const Napi::Value& query,
                         const Napi::Value& key, const Napi::Value& value, const Napi::Value& output) {
  Arguments arguments{kind, 0, {}, {}, {}, {}};
  arguments.query = read_operand(query, config.dtype, engine);
  arguments.tokens = arguments.query.elements / config.query_width();
  if (arguments.tokens == 0) throw Error(ErrorCode::Shape, "Expected at least one token for \"q\" but received none");
  expect(arguments.query, arguments.tokens * config.query_width());
  if (kind != CallKind::Retrieve) {
    arguments.key = read_operand(key, config.dtype, engine);
    arguments.value = read_operand(value, config.dtype, engine);
    expect(arguments.key, arguments.tokens * config.key_width());
    expect(arguments.value, arguments.tokens * config.value_width());
  }
  if (!output.IsUndefined()) {
    arguments.output = read_operand(output, config.dtype, engine);
    expect(arguments.output, arguments.tokens * config.output_width());
  }
  return arguments;
}

Tensors in_place(const Arguments& arguments) {
  Tensors tensors;
  tensors.tokens = arguments.tokens;
  tensors.query = arguments.query.data;
  tensors.key = arguments.key.data;
  tensors.value = arguments.value.data;
  tensors.output = arguments.output.data;
  tensors.query_place = arguments.query.place;
  tensors.key_place = arguments.key.place;
  tensors.value_place = arguments.value.place;
  tensors.output_place = arguments.output.place;
  tensors.output_visible = true;
  return tensors;
}

std::shared_ptr<Call> make_call(const Arguments& arguments, const StreamConfig& config, DeviceHandle& device) {
  if (arguments.output.data && !arguments.output.memory) {
    throw Error(ErrorCode::InvalidArgType, "Expected an output that the call can keep alive");
  }
  auto call = std::make_shared<Call>();
  call->kind = arguments.kind;
  call->limit = device.limit;
  call->tensors = in_place(arguments);
  call->output_bytes = size_t(arguments.tokens * config.output_width()) * config.element_bytes();

  const Operand* const inputs[] = {&arguments.query, &arguments.key, &arguments.value};
  const void** const staged[] = {&call->tensors.query, &call->tensors.key, &call->tensors.value};
  size_t bytes = arguments.output.data ? 0 : aligned(call->output_bytes);
  for (const Operand* input : inputs) {
    if (!input->memory) bytes += aligned(size_t(input->elements) * config.element_bytes());
  }
  if (bytes > 0) {
    require_memory(bytes + call->output_bytes, "the tensors of one call", device.engine.ledger());  // then in `out`
    call->memory.push_back(device.engine.backend().allocate_host(bytes, &Ledger::staging_bytes));
    char* to = static_cast<char*>(call->memory.back()->data());
    for (int i = 0; i < 3; ++i) {
      if (inputs[i]->memory || !inputs[i]->data) continue;
      const size_t input_bytes = size_t(inputs[i]->elements) * config.element_bytes();
      copy(to, inputs[i]->data, input_bytes, device.limit->most);
      *staged[i] = to;
      to += aligned(input_bytes);
    }
    if (!arguments.output.data) {
      call->tensors.output = to;
      call->tensors.output_visible = false;
    }
  }
  for (const Operand* operand : {inputs[0], inputs[1], inputs[2], &arguments.output}) {
    if (operand->memory) call->memory.push_back(operand->memory);
  }
  return call;
}

}  // namespace infini
