// Weights read from open files, row by row, as lib/model/weights.ts has found them there.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "core/model.h"

namespace infini {

// A matrix in a file: row-major, little-endian.
struct StoredWeight {
  DType dtype;
  int file;  // descriptor, open for reading
  int64_t begin;
  int64_t rows, columns;
  std::string file_name;  // for messages
};

class FileWeights final : public WeightSource {
 public:
  // Throws Error(Model) when a matrix is missing or its shape is not the one that `config` asks for.
  FileWeights(const ModelConfig& config, std::map<std::pair<Weight, int>, StoredWeight> weights);

  DType dtype(Weight weight, int layer) const override { return weights_.at({weight, layer}).dtype; }
  void read(Weight weight, int layer, int64_t begin, int64_t end, void* to) override;

 private:
  const std::map<std::pair<Weight, int>, StoredWeight> weights_;
};

const char* name_of(Weight weight);

}  // namespace infini
