from keras_embcomp.deploy.onnx.export import export_onnx

__all__ = ["export_onnx"]
