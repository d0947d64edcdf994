"""The five networks of TARO in PyTorch, written from the published description.

Names, shapes and state-dict keys are those of the released checkpoints; sizes come from `config`.
"""
