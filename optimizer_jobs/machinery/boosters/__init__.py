"""Boosted trees of XGBoost, LightGBM and CatBoost: their files read, and written as ONNX."""
