"""A finished adapter in the forms that others load: PEFT's, Unsloth's, one merged checkpoint, GGUF.

source               which adapter: a registered version, or an artifact of the home
adapter, base        what is read: what the adapter adds to each weight; the base's weights, one at a time
merge                the sum of both, a stack of experts at a time
peft_form, merged_form, gguf_form, gguf_tokenizer    what is written
reference, load_plain, plain_script    what it computes here, and loaded back without this package
readme, export       what stands beside it; written aside, checked, published in one rename
"""
