"""gRPC over HTTP/2, the server's side, on asyncio: a room that knows nothing of images or models.

It serves what generated code registers (`grpc.RpcMethodHandler`s), and gives handlers the part of
`grpc.aio.ServicerContext` that they use here. Why not `grpc.aio`'s own server: ARCHITECTURE.md.
"""
