"""Generated code of ``proto/``: messages of the gRPC services, and stubs for clients.

Made by ``scripts/protoc.py``; needs the extra ``grpc``.
"""
