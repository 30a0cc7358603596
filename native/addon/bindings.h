// The functions that lib/native.ts declares. Each unwraps, calls the core and wraps; none computes.
#pragma once

#include <napi.h>

namespace infini {

void export_batch(Napi::Env env, Napi::Object exports);
void export_device(Napi::Env env, Napi::Object exports);
void export_memory(Napi::Env env, Napi::Object exports);
void export_model(Napi::Env env, Napi::Object exports);
void export_stream(Napi::Env env, Napi::Object exports);

}  // namespace infini
