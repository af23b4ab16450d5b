"""What the predictor knows of ONNX Runtime: which kernels it runs, told by rules, and how they are measured."""
