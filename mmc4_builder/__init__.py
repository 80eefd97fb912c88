"""mmc4-build: rebuild Multimodal C4 from any Common Crawl."""

__version__ = "0.1.0"
