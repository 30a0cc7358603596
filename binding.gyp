{
  # For tools that only know node-gyp: CMakeLists.txt is the build, this hands over to it.
  "targets": [
    {
      "target_name": "infini_stream",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/infini_stream.node"],
          "action": ["node", "scripts/build.cjs", "--to", "<(PRODUCT_DIR)"]
        }
      ]
    }
  ]
}
