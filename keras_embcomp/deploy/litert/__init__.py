from keras_embcomp.deploy.litert.export import LiteRTExport, export_litert

__all__ = ["LiteRTExport", "export_litert"]
