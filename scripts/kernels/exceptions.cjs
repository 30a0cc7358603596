// Instances that may keep data in local memory (spilled registers and arrays), each with the reason.

module.exports = [];
