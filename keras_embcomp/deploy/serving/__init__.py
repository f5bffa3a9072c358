from keras_embcomp.deploy.serving.export import export_serving

__all__ = ["export_serving"]
