// Where Node enters.
#include "addon/bindings.h"
#include "addon/convert.h"
#include "addon/environment.h"

namespace infini {

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  Environment::attach(env);
  exports.Set("version", INFINI_VERSION);
  exports.Set("errorTable", Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
                return error_table(info.Env());
              }));
  export_device(env, exports);
  export_memory(env, exports);
  export_stream(env, exports);
  export_batch(env, exports);
  export_model(env, exports);
  return exports;
}

NODE_API_MODULE(infini_stream, initialise)

}  // namespace infini
