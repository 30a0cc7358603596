// Instances that may keep data in local memory (spilled registers and arrays), each with the reason.

module.exports = [
  {
    kernel: /retrieve<float, 256>/,
    reason: '16 rows of 256 columns are 128 accumulators, and a float32 product takes thrice the operands',
  },
];
