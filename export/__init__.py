"""Networks to bundles: ONNX graphs, their parity check, and the manifest."""
