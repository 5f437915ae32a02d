"""The step of bitsandbytes' 8-bit AdamW as one pass over memory."""
