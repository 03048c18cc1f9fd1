"""The gateway for callers in other languages: two nginx, and the program that configures them."""
