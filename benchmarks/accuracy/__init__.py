"""Accuracy: faithfulness of token scores against Captum, mutual information estimators against known values."""
