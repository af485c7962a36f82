"""A gRPC server and client that know of the mesh only what xDS tells them.

    grpc_hello.py serve PORT NAME      answers every call with NAME
    grpc_hello.py call TARGET COUNT    calls TARGET (xds:///HOST:PORT) and prints how often each name answered, as JSON

Messages are plain bytes, so that no generated code is needed.
"""

import collections
import json
import sys
from concurrent import futures

import grpc

METHOD = "/helloworld.Greeter/SayHello"


class Greeter(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name.encode()

    def service(self, call):
        if call.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.name)


def serve(port, name):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((Greeter(name),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def call(target, count):
    answers = collections.Counter()
    with grpc.insecure_channel(target) as channel:
        say_hello = channel.unary_unary(METHOD)
        for _ in range(int(count)):
            try:
                answers[say_hello(b"", timeout=20, wait_for_ready=False).decode()] += 1
            except grpc.RpcError as error:
                answers[f"{error.code().name}: {error.details()}"] += 1
    print(json.dumps(answers))


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
