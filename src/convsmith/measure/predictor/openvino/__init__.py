"""What the predictor knows of OpenVINO: which kernels it runs on the CPU, told by rules, and how they are measured."""
