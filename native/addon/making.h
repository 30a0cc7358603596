// What takes milliseconds to make is made on one of Node's own threads: streams from images, models from files.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "addon/convert.h"
#include "addon/handles.h"

namespace infini {

// Runs `make` there, then calls settle(error, handle of what was made) here.
template <class Handle, class Make> class Making final : public Napi::AsyncWorker {
 public:
  Making(const Napi::Function& settle, DeviceReference device, const char* what, Make make)
      : AsyncWorker(settle), device_(std::move(device)), what_(what), make_(std::move(make)) {}

  void Execute() override {
    try {
      made_ = make_();
    } catch (const Error& error) {
      error_ = error;
    } catch (const std::bad_alloc&) {
      error_ = kNoRoom;
    }
  }

  void OnOK() override {
    Napi::Value handle = Env().Null();
    try {
      if (!error_ && device_->closed) {
        error_ = Error(ErrorCode::Closed, std::string("The device was closed while ") + what_);
      }
      if (!error_) handle = wrap<Handle>(Env(), Env(), device_, std::move(made_));
    } catch (const std::bad_alloc&) {
      error_ = kNoRoom;
    }
    Callback().Call({error_ ? to_javascript(Env(), *error_).Value() : Env().Null(), handle});
  }

 private:
  const DeviceReference device_;
  const char* const what_;  // was done, for the message
  Make make_;               // also owns what the other thread reads
  decltype(std::declval<Make&>()()) made_;
  std::optional<Error> error_;
};

template <class Handle, class Make>
void make_later(const Napi::Value& settle, const DeviceReference& device, const char* what, Make make) {
  if (device->closed) throw Error(ErrorCode::Closed, "Expected an open device but it is closed");
  (new Making<Handle, Make>(settle.As<Napi::Function>(), device, what, std::move(make)))->Queue();
}

}  // namespace infini
