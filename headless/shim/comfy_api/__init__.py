"""A stand-in for ComfyUI's `comfy_api` where ComfyUI is not installed; the real package always wins."""
