"""What a request may ask for beyond text: pictures, masks, controls, large and seamless canvases, a second model."""
